"""A machine of libkrun's, for ``compare microvm``, by its C API (libkrun, include/libkrun.h):

    python krun.py LIBRARY MIB ROOT PROGRAM [KERNEL INITRD COMMAND_LINE]

It has one processor and MIB mebibytes; its output is this process's. The kernel is that of the libkrunfw beside the
library, and PROGRAM is executed in the directory ROOT, which is shared with it; or KERNEL, an ELF file, and the first
program of INITRD. Nothing of this package is imported: only libkrun is measured.
"""

from __future__ import annotations

import ctypes
import os
import sys

TAG = b"/dev/root"  # of the shared directory that libkrun's init makes its root
ELF = 1  # KRUN_KERNEL_FORMAT_ELF
STDIN, STDOUT, STDERR = range(3)


def main(library: str, mib: str, root: str, program: str, *kernel: str) -> None:
    """Enter the machine; at its end libkrun ends this process."""
    krun = ctypes.CDLL(library, mode=os.RTLD_LAZY)  # smolmachines 1.32.2: symbols of virgl are undefined

    def call(name: str, *arguments: object) -> int:
        result: int = getattr(krun, name)(*arguments)
        if result < 0:
            raise SystemExit(f"{name}: {os.strerror(-result)}")
        return result

    context = call("krun_create_ctx")
    call("krun_set_vm_config", context, ctypes.c_uint8(1), ctypes.c_uint32(int(mib)))
    call("krun_add_virtiofs3", context, TAG, os.fsencode(root), ctypes.c_uint64(0), ctypes.c_bool(False))
    if kernel:
        image, initrd, command_line = map(os.fsencode, kernel)
        call("krun_set_kernel", context, image, ctypes.c_uint32(ELF), initrd, command_line)
        call("krun_add_serial_console_default", context, STDIN, STDOUT)
    else:
        nothing = (ctypes.c_char_p * 1)(None)
        call("krun_add_virtio_console_default", context, STDIN, STDOUT, STDERR)
        call("krun_set_exec", context, os.fsencode(program), nothing, nothing)
    call("krun_start_enter", context)


if __name__ == "__main__":
    main(*sys.argv[1:])

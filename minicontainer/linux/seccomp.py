"""seccomp(2) filters in classic BPF: a small assembler of deny lists, and loading."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

from minicontainer.native import ffi, lib, syscall

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
NR, ARCH = 0, 4  # offsets in struct seccomp_data


def deny(names: Iterable[str], error: int = errno.EPERM) -> bytes:
    """A program (struct sock_filter[]) that answers ``error`` to the named calls and allows the others; a call of
    another architecture's table kills. ValueError for a name that native.h's constants do not know."""
    numbers = []
    for name in names:
        number = getattr(lib, f"SYS_{name}", None)
        if number is None:
            raise ValueError(f"{name!r} is no system call that is known here")
        if number >= 0:  # else this architecture does not have it
            numbers.append(number)
    arch = lib.AUDIT_ARCH_X86_64 if os.uname().machine == "x86_64" else lib.AUDIT_ARCH_AARCH64
    program = [
        (LOAD, 0, 0, ARCH),
        (JUMP_EQUAL, 1, 0, arch),
        (RETURN, 0, 0, lib.SECCOMP_RET_KILL_PROCESS),
        (LOAD, 0, 0, NR),
    ]
    for number in numbers:
        program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, lib.SECCOMP_RET_ERRNO | error)]
    program.append((RETURN, 0, 0, lib.SECCOMP_RET_ALLOW))
    return b"".join(INSTRUCTION.pack(*i) for i in program)


def load(program: bytes, flags: int = 0) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER) of the calling thread, for good; needs no_new_privs or CAP_SYS_ADMIN."""
    buffer = ffi.from_buffer(program)
    header = struct.pack("=H6xQ", len(program) // 8, int(ffi.cast("uintptr_t", buffer)))
    count = f"{len(program) // 8} instructions"
    syscall("seccomp", lib.SYS_seccomp, lib.SECCOMP_SET_MODE_FILTER, flags, header, what=(count,))

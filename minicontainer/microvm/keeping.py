"""Machines that are kept in files, since to make one takes many modules of Python, and all of a packed kernel.

What csrc/vmm is given (image.py) says where the kernel's segments lie in its file, not what they hold. So it depends on
the kernel's file, on the size of the initramfs, on what was asked for, on this package's code, and on what KVM supports
of the processor. A file of ``~/.cache/minicontainer/machines`` (usercache.py) is named by the BLAKE2b of all that. It
has the stamps of the code, the files that the segments lie in, and the data.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

from minicontainer import usercache
from minicontainer.microvm import stamps
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

KIND = "machines"
UNPACKED = "kernels"  # boot.kept.KIND: of unpacked kernels, each named by its content
FORMAT = 1
DATA_MAX = 1 << 20  # bytes: more has a kernel in it, which could not be kept unpacked
TOTAL_MAX = 8 << 20
CPUID_ENTRIES = 256  # room: KVM has at most so many (KVM_MAX_CPUID_ENTRIES)
FEATURES, TOPOLOGY = 1, (0xB, 0x1F)  # CPUID leaves that say on which processor they were asked for
KERNEL, INITRAMFS = "kernel", "initramfs"
# The modules whose code decides what is made. One that has changed since this time, in nanoseconds, may not be what was
# imported.
CODE = ("minicontainer._native", "minicontainer.kvm", "minicontainer.microvm")
IMPORTED = time.time_ns() - 10 * 10**9

if TYPE_CHECKING:
    Made = tuple[bytes, tuple[int, ...]]  # data, descriptors


class Keeping:
    """What is kept for one machine: of the kernel at ``kernel``, with the initramfs of a descriptor, and ``asked``, all
    else that was asked for. ``kvm``: a descriptor of /dev/kvm."""

    def __init__(self, kernel: str, initramfs: int, kvm: int, asked: Sequence[object]) -> None:
        self._kernel, self._initramfs = kernel, initramfs
        self._identity = _identity(os.stat(kernel))
        host = os.sysconf("SC_PHYS_PAGES"), processor(kvm)  # a machine has no more memory than the host
        key = (FORMAT, kernel, self._identity, os.fstat(initramfs).st_size, host, tuple(asked))
        self._name = stamps.digest(stamps.encoded(repr(key)))

    def find(self) -> Made | None:
        """Data, and new descriptors of the files; None: none is kept, or some of it has changed."""
        fd = usercache.reuse(KIND, self._name)
        if fd is None:
            return None
        with open(fd, "rb", buffering=0) as file:
            raw = file.read()
        try:
            code, files, data = marshal.loads(raw)
        except (ValueError, EOFError, TypeError):
            return None
        if not stamps.are_current(code):
            return None
        opened = self._opened(files)
        return None if opened is None else (data, opened)

    def keep(self, data: bytes, files: Sequence[int]) -> None:
        """Keeps a machine, if each of its files can be opened again."""
        named = [(self._name_of(fd), os.fstat(fd).st_size) for fd in files]
        if len(data) > DATA_MAX or not all(name for name, _ in named):
            return
        sources = tuple(_sources())
        if any(os.stat(source).st_ctime_ns > IMPORTED for source in sources):
            return
        code = stamps.encoded("\n".join(stamps.of_files(sources)))
        usercache.keep(KIND, self._name, marshal.dumps((code, named, data)), most=TOTAL_MAX)

    def _opened(self, files: Sequence[tuple[str, int]]) -> tuple[int, ...] | None:
        """A descriptor of each file of a name and a size; None: one has gone, or is another."""
        opened: list[int] = []
        try:
            for name, size in files:
                fd = self._open(name)
                if fd is None:
                    break
                opened.append(fd)
                info = os.fstat(fd)
                if info.st_size != size or (name == KERNEL and _identity(info) != self._identity):
                    break
            else:
                return tuple(opened)
        except OSError:
            pass
        for fd in opened:
            os.close(fd)
        return None

    def _open(self, name: str) -> int | None:
        """A descriptor of a file that was named by ``_name_of``."""
        if name == INITRAMFS:
            return os.dup(self._initramfs)
        if name == KERNEL:
            return os.open(self._kernel, os.O_RDONLY | os.O_CLOEXEC)
        return usercache.reuse(UNPACKED, name)

    def _name_of(self, fd: int) -> str:
        """The name of a file; "": it could not be found again."""
        info = os.fstat(fd)
        if _identity(info) == self._identity:
            return KERNEL
        if os.path.samestat(info, os.fstat(self._initramfs)):
            return INITRAMFS
        directory, _, name = os.readlink(f"/proc/self/fd/{fd}").rpartition("/")
        return name if directory == os.path.realpath(usercache.directory(UNPACKED) or "/") else ""


def processor(kvm: int) -> bytes:
    """What KVM supports of this host's processor (KVM_GET_SUPPORTED_CPUID), without what differs between its cores."""
    cpuid = ffi.new("struct kvm_cpuid2 *", {"entries": CPUID_ENTRIES})
    cpuid.nent = CPUID_ENTRIES
    if lib.mc_ioctl(kvm, lib.KVM_GET_SUPPORTED_CPUID, cpuid) < 0:
        return b""
    return b"".join(_leaves(cpuid))


def _leaves(cpuid: Any) -> Iterator[bytes]:
    for i in range(cpuid.nent):
        entry = cpuid.entries[i]
        if entry.function == FEATURES:
            entry.ebx &= 0xFFFF  # cpuid.py sets the others
        if entry.function in TOPOLOGY:
            entry.eax = entry.ebx = entry.ecx = entry.edx = 0  # as it does all of these
        yield bytes(ffi.buffer(ffi.addressof(entry)))


def _identity(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _sources() -> Iterator[str]:
    """The files of the modules that make a machine."""
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(CODE) and isinstance(file, str):
            yield file

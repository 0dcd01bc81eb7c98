"""A kernel file: opened, checked, recognised by its first bytes, and read."""

from __future__ import annotations

import mmap
import os
import stat
from typing import NamedTuple, TypeVar

from minicontainer.errors import Error, sentence, with_errno_class
from minicontainer.kvm import guests
from minicontainer.kvm.memory import GuestMemory, GuestMemoryError

HEAD = 4096
SECTOR = 512
CPUS_MAX = 254  # 8-bit APIC ids; 255 is the broadcast id
Self = TypeVar("Self", bound="Kernel")

# First bytes of files that are not kernels -> (description, remedy). Otherwise they would be loaded as flat binaries.
FOREIGN = {
    b"\x1f\x8b\x08": ("is packed by gzip", "gunzip"),  # RFC 1952, 2.3.1
    b"\xfd7zXZ\0": ("is packed by xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("is packed by zstd", "unzstd"),  # RFC 8878, 3.1.1
    b"BZh": ("is packed by bzip2", "bunzip2"),
    b"\x04\x22\x4d\x18": ("is packed by lz4", "unlz4"),  # lz4's doc/lz4_Frame_format.md
    b"\x02\x21\x4c\x18": ("is packed by lz4", "unlz4"),
    b"PK\3\4": ("is a zip archive", "unzip"),
    b"MZ": ("is a program for EFI, DOS or Windows", "the bzImage, or an ELF file"),  # Linux's bzImages have HdrS too
    b"0707": ("is a cpio archive", "--initrd"),  # as Linux's initial root file systems are; cpio(5)
    b"#!": ("is a script", "a kernel, or a guest of --list"),
    b"QFI\xfb": ("is a disk image", "the kernel that is on it"),
    b"\x27\x05\x19\x56": ("is packed for U-Boot", "dumpimage"),
}


class KernelError(Error):
    """A file cannot be booted. ``exit_code`` 126; 127 if there is no such file.

    If open(2) failed it is also of Python's class for that errno: FileNotFoundError ..."""

    exit_code = 126

    def __new__(cls, path: str, reason: str, hint: str = "", *, exit_code: int = 126, number: int = 0) -> KernelError:
        """``number``: the errno of open(2), or 0."""
        if not number:
            return super().__new__(cls, path, reason)
        return OSError.__new__(with_errno_class(cls, number), number, reason, path)

    def __init__(self, path: str, reason: str, hint: str = "", *, exit_code: int = 126, number: int = 0) -> None:
        self.path, self.reason, self.hint, self.exit_code = path, reason, hint, exit_code

    def __str__(self) -> str:
        return sentence("kernel", self.path, self.reason, self.hint)


class Entry(NamedTuple):
    """How a processor enters a loaded kernel.

    mode       real, protected, long, user64
    registers  initial values by name, beside rip and rflags
    used       (address, size) of the memory that the kernel occupies; tables are written elsewhere
    irqchip    the guest needs interrupt controllers
    cpus       the number of processors that the kernel requests
    linux      the kernel is Linux: it needs ACPI tables and initialised MSRs"""

    kind: str
    mode: str
    rip: int
    registers: dict[str, int]
    used: list[tuple[int, int]]
    segment: int = 0
    irqchip: bool = False
    cpus: int = 1
    linux: bool = False


class Kernel:
    """A kernel file. ``kind``: flat, boot-sector, elf32, elf64, bzimage, or foreign (not a kernel)."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            hint = guests.suggestion(path) if missing else ""
            number = error.errno or 0
            reason, code = os.strerror(number), 127 if missing else 126
            raise KernelError(path, reason, hint, exit_code=code, number=number) from None
        except ValueError as error:  # a NUL byte, or half a character
            raise KernelError(path, f"is no path ({error})", exit_code=127) from None
        try:
            self.size = self._regular_size()
            self.head = os.pread(self.fd, HEAD, 0)
            self.kind = recognise(self.head, self.size)
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _regular_size(self) -> int:
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise self.error("is a directory" if stat.S_ISDIR(status.st_mode) else "is no regular file")
        if status.st_size == 0:
            raise self.error("is empty")
        return status.st_size

    def error(self, reason: str, hint: str = "") -> KernelError:
        """A KernelError for this file."""
        return KernelError(self.path, reason, hint)

    def check(self) -> None:
        """KernelError: the file is not a kernel."""
        if self.kind == "foreign":
            raise self.error(*next(message for magic, message in FOREIGN.items() if self.head.startswith(magic)))

    def read(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes at ``offset``; ``what`` names them in the error."""
        if offset < 0 or offset + length > self.size:
            raise self.error(f"{what} lies at {offset:#x} to {offset + length:#x}, beyond its {self.size} bytes")
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        data = os.pread(self.fd, length, offset)
        if len(data) != length:
            raise self.error(f"{what} could be read only to {offset + len(data):#x}: does it change?")
        return data

    def read_into(self, view: memoryview, offset: int, what: str) -> None:
        """Reads from ``offset`` on into ``view``, without an intermediate copy; the first bytes come from ``head``."""
        head = self.head[offset : offset + len(view)]
        done = len(head)
        view[:done] = head
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], offset + done)
            if count == 0:
                raise self.error(f"{what} ends at {offset + done:#x}: does it change?")
            done += count


class InMemory(Kernel):
    """A kernel in memory instead of in a file."""

    def __init__(self, path: str, content: bytes | mmap.mmap) -> None:
        self.path, self.content, self.size, self.head = path, content, len(content), content[:4096]
        self.kind = recognise(self.head, self.size)
        if not content:
            raise self.error("is empty")

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, offset: int, length: int, what: str) -> bytes:
        """As Kernel."""
        if offset < 0 or offset + length > self.size:
            raise self.error(f"{what} lies at {offset:#x} to {offset + length:#x}, beyond its {self.size} bytes")
        return self.content[offset : offset + length]

    def read_into(self, view: memoryview, offset: int, what: str) -> None:
        """As Kernel."""
        with memoryview(self.content) as whole, whole[offset : offset + len(view)] as part:
            view[:] = part


def entry_error(memory: GuestMemory, mode: str, address: int) -> str:
    """Why a processor cannot enter at ``address`` in this mode; "": it can."""
    try:
        memory.offset(address, 1)
    except GuestMemoryError:
        return f"is outside memory ({memory.describe()})"
    if mode == "real" and address > 0xFFFF:
        return "is beyond the first 64 KiB, which real mode enters"
    if mode == "protected" and address > 0xFFFFFFFF:
        return "is beyond the 4 GiB of protected mode"
    return ""


def recognise(head: bytes, size: int) -> str:
    """The kind of a file, by its first bytes; "flat" if they match nothing else."""
    if head[:4] == b"\x7fELF":
        return "elf32" if head[4:5] == b"\x01" else "elf64"
    if head[0x202:0x206] == b"HdrS":  # Linux Documentation/arch/x86/boot.rst
        return "bzimage"
    if size == SECTOR and head[510:512] == b"\x55\xaa":
        return "boot-sector"
    if head.startswith(tuple(FOREIGN)):
        return "foreign"
    return "flat"

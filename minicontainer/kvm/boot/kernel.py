"""A kernel file: opened, measured, recognised by its first bytes; read only where it has been judged."""

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
CPUS_MAX = 254  # with 8-bit APIC ids: 255 is everybody's
Self = TypeVar("Self", bound="Kernel")

# What begins so is no code, though it might be entered as a flat binary: what it is, and the remedy.
FOREIGN = {
    b"\x1f\x8b\x08": ("is packed by gzip", "gunzip"),  # RFC 1952, 2.3.1
    b"\xfd7zXZ\0": ("is packed by xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("is packed by zstd", "unzstd"),  # RFC 8878, 3.1.1
    b"BZh": ("is packed by bzip2", "bunzip2"),
    b"\x04\x22\x4d\x18": ("is packed by lz4", "unlz4"),  # lz4's doc/lz4_Frame_format.md
    b"\x02\x21\x4c\x18": ("is packed by lz4", "unlz4"),
    b"PK\3\4": ("is a zip archive", "unzip"),
    b"MZ": ("is a program for EFI, DOS or Windows", "the bzImage, or an ELF file"),  # one that is Linux has a HdrS, too
    b"0707": ("is a cpio archive", "--initrd"),  # as Linux's initial root file systems are; cpio(5)
    b"#!": ("is a script", "a kernel, or a guest of --list"),
    b"QFI\xfb": ("is a disk image", "the kernel that is on it"),
    b"\x27\x05\x19\x56": ("is packed for U-Boot", "dumpimage"),
}


class KernelError(Error):
    """A file cannot be booted: which, where in it, and why. ``exit_code`` 126, and 127 where there is none.

    Where the file could not be opened it is also what Python makes of that errno: FileNotFoundError ..."""

    exit_code = 126

    def __new__(cls, path: str, reason: str, hint: str = "", *, exit_code: int = 126, number: int = 0) -> KernelError:
        """``number``: the errno, where there is one."""
        if not number:
            return super().__new__(cls, path, reason)
        return OSError.__new__(with_errno_class(cls, number), number, reason, path)

    def __init__(self, path: str, reason: str, hint: str = "", *, exit_code: int = 126, number: int = 0) -> None:
        self.path, self.reason, self.hint, self.exit_code = path, reason, hint, exit_code

    def __str__(self) -> str:
        return sentence("kernel", self.path, self.reason, self.hint)


class Entry(NamedTuple):
    """How a processor enters what was loaded.

    mode       real, protected, long, user64
    registers  by name, beside rip and rflags
    used       (address, size) of what lies in memory: tables go elsewhere
    irqchip    the guest wants interrupts; ``cpus``: and at least so many processors
    linux      it is Linux: the machine needs what Linux needs of a PC"""

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
    """A file, and what it is: ``kind`` is flat, boot-sector, elf32, elf64, bzimage, or foreign, which is no kernel."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            hint = guests.meant(path) if missing else ""
            number = error.errno or 0
            reason, code = os.strerror(number), 127 if missing else 126
            raise KernelError(path, reason, hint, exit_code=code, number=number) from None
        except ValueError as error:  # a NUL byte, or half a character
            raise KernelError(path, f"is no path ({error})", exit_code=127) from None
        try:
            self.size = self._measure()
            self.head = os.pread(self.fd, HEAD, 0)
            self.kind = recognise(self.head, self.size)
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _measure(self) -> int:
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise self.error("is a directory" if stat.S_ISDIR(status.st_mode) else "is no regular file")
        if status.st_size == 0:
            raise self.error("is empty")
        return status.st_size

    def error(self, reason: str, hint: str = "") -> KernelError:
        """What is wrong with it."""
        return KernelError(self.path, reason, hint)

    def check(self) -> None:
        """KernelError where it is no kernel."""
        if self.kind == "foreign":
            raise self.error(*next(said for magic, said in FOREIGN.items() if self.head.startswith(magic)))

    def read(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes that must be there; ``what`` they are, for the error."""
        if offset < 0 or offset + length > self.size:
            raise self.error(f"{what} lies at {offset:#x} to {offset + length:#x}, beyond its {self.size} bytes")
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        data = os.pread(self.fd, length, offset)
        if len(data) != length:
            raise self.error(f"{what} could be read only to {offset + len(data):#x}: does it change?")
        return data

    def read_into(self, view: memoryview, offset: int, what: str) -> None:
        """Fills ``view`` from ``offset`` on; with no copy between but of the first bytes, which were read to recognise
        it."""
        held = self.head[offset : offset + len(view)]
        done = len(held)
        view[:done] = held
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


def wrong_entry(memory: GuestMemory, mode: str, address: int) -> str:
    """Why a processor cannot enter there in that mode; "" if it can."""
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
    """What a file is, by its first bytes. What is nothing else is a flat binary."""
    if head[:4] == b"\x7fELF":
        return "elf32" if head[4:5] == b"\x01" else "elf64"
    if head[0x202:0x206] == b"HdrS":  # Linux Documentation/arch/x86/boot.rst
        return "bzimage"
    if size == SECTOR and head[510:512] == b"\x55\xaa":
        return "boot-sector"
    if head.startswith(tuple(FOREIGN)):
        return "foreign"
    return "flat"

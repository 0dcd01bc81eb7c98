"""A kernel file: opened, checked, recognised by its first bytes, and read."""

from __future__ import annotations

import os
import stat

from minicontainer.errors import Error, SpecError, sentence, with_errno_class
from minicontainer.kvm import guests
from minicontainer.kvm.memory import HIGH, HOLE, GuestMemoryError, host_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from typing import NamedTuple, TypeVar

    from minicontainer.kvm.memory import GuestMemory

    Self = TypeVar("Self", bound="Kernel")
else:
    from minicontainer.records import NamedTuple

HEAD = 36 << 10  # bytes that are read first: a multiboot2 header is in the first 32 KiB, a CD's mark behind them
CPUS_MAX = 254  # 8-bit APIC ids; 255 is the broadcast id


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

    mode       real, protected, long, user64, reset (as a processor is after it)
    registers  initial values by name, beside rip and rflags
    segment    of real mode; the code's is ``code_segment`` above it
    used       (address, size) of the memory that the kernel occupies; tables are written elsewhere
    irqchip    the guest needs interrupt controllers
    cpus       the number of processors that the kernel requests
    linux      a kernel that expects a PC's firmware to have run, as Linux does: ACPI tables, initialised MSRs
    guessed    the file is of no known format, and nobody said how to enter it"""

    kind: str
    mode: str
    rip: int
    registers: dict[str, int]
    used: list[tuple[int, int]]
    segment: int = 0
    code_segment: int = 0
    irqchip: bool = False
    cpus: int = 1
    linux: bool = False
    guessed: bool = False


class Kernel:
    """A kernel file. ``inner``: what is packed in it, once that was unpacked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.inner: InMemory | None = None
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
        length = len(view)
        head = self.head[offset : offset + length]
        done = len(head)
        view[:done] = head
        while done < length:
            count = os.preadv(self.fd, [view[done:]], offset + done)
            if count == 0:
                raise self.error(f"{what} ends at {offset + done:#x}: does it change?")
            done += count


class InMemory(Kernel):
    """A kernel in memory instead of in a file."""

    def __init__(self, path: str, content: bytes | mmap.mmap) -> None:
        self.path, self.content, self.size, self.head = path, content, len(content), content[:HEAD]
        self.inner = None
        if not content:
            raise self.error("is empty")

    def __exit__(self, *_: object) -> None:
        if not isinstance(self.content, bytes):
            self.content.close()

    def read(self, offset: int, length: int, what: str) -> bytes:
        """As Kernel."""
        if offset < 0 or offset + length > self.size:
            raise self.error(f"{what} lies at {offset:#x} to {offset + length:#x}, beyond its {self.size} bytes")
        return self.content[offset : offset + length]

    def read_into(self, view: memoryview, offset: int, what: str) -> None:
        """As Kernel."""
        with memoryview(self.content) as whole, whole[offset : offset + len(view)] as part:
            view[:] = part


class _Opened:
    """A context without an end: its Kernel stays open."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __enter__(self) -> Kernel:
        return self._kernel

    def __exit__(self, *_: object) -> None:
        pass


def opened(kernel: object) -> Kernel | _Opened:
    """A context: the kernel of this path, of this guest's name, or of these bytes; a Kernel itself, which stays
    open."""
    if isinstance(kernel, Kernel):
        return _Opened(kernel)
    if isinstance(kernel, (bytes, bytearray, memoryview)):
        return InMemory("<bytes>", bytes(kernel))
    if isinstance(kernel, str):
        return Kernel(guests.find(kernel))
    if isinstance(kernel, os.PathLike):
        return Kernel(os.fsdecode(kernel))
    raise SpecError("kernel", kernel, f"must be a path, a guest's name or bytes, not {type(kernel).__name__}")


def remedy(address: int, size: int, otherwise: str) -> str:
    """The memory with which ``size`` bytes fit at ``address``; ``otherwise``, where no machine has memory."""
    end = address + size
    if address >= 0 and end <= HOLE:
        return f"--memory {_mib(end)}m"
    needed = end - (HIGH - HOLE)
    if address >= HIGH and needed <= host_memory():
        return f"--memory {_mib(needed)}m"
    return otherwise


def _mib(size: int) -> int:
    """Whole MiB, and one for the processor's tables."""
    return -(-size >> 20) + 1


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

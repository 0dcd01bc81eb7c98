"""Guest memory that records what is written to it, instead of having it: a machine's memory as data."""

from __future__ import annotations

import os

from minicontainer.errors import Error
from minicontainer.kvm.boot.kernel import InMemory, Kernel
from minicontainer.kvm.memory import GuestMemory, parse_memory, regions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.kvm.memory import Source
else:
    from minicontainer.records import NamedTuple


class Written(NamedTuple):
    """Bytes at an address."""

    address: int
    data: bytes


class Copied(NamedTuple):
    """``size`` bytes at ``offset`` of the file ``number``, at an address."""

    address: int
    size: int
    offset: int
    number: int


class RecordedMemory(GuestMemory):
    """What loaders and tables write, in their order. It cannot be read.

    ``files``: a descriptor of each file that memory is copied from; ``close`` closes them."""

    def __init__(self, size: int | str) -> None:
        self.size = parse_memory(size)
        self.regions = regions(self.size)
        self.writes: list[Written | Copied] = []
        self.files: list[int] = []
        self._numbers: dict[tuple[int, int], int] = {}  # device and inode -> index in ``files``

    def _check_open(self) -> None:
        """As GuestMemory; there is nothing that could be unmapped."""

    def close(self) -> None:
        """Closes the files."""
        while self.files:
            os.close(self.files.pop())

    def view(self, address: int, length: int) -> memoryview:
        """Error: there is no memory."""
        raise Error(f"guest memory {address:#x}: {length} bytes there are recorded, and cannot be read")

    def read(self, address: int, length: int) -> bytes:
        """Error: there is no memory."""
        return bytes(self.view(address, length))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Records bytes."""
        content = bytes(data)
        self.offset(address, len(content))
        if content:
            self.writes.append(Written(address, content))

    def read_from(self, file: Source, address: int, length: int, offset: int, what: str) -> None:
        """Records where the bytes are, in a file of its own; else what they are."""
        self.offset(address, length)
        if not length:
            return
        if isinstance(file, Kernel) and not isinstance(file, InMemory):
            self.writes.append(Copied(address, length, offset, self._number(file.fd)))
            return
        content = bytearray(length)
        file.read_into(memoryview(content), offset, what)
        self.write(address, content)

    def _number(self, fd: int) -> int:
        info = os.fstat(fd)
        key = info.st_dev, info.st_ino
        if key not in self._numbers:
            self.files.append(os.dup(fd))
            self._numbers[key] = len(self.files) - 1
        return self._numbers[key]

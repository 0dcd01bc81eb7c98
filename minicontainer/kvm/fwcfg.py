"""fw_cfg: values and files that a machine gives to its firmware or kernel (QEMU docs/specs/fw_cfg.rst).

The guest selects an item by its key, and then reads it byte by byte, or all of it by one DMA access. The items with
fixed keys are the signature, the interface's id, and the directory of the files, which have keys from FILES on.
"""

from __future__ import annotations

import struct

from minicontainer.errors import SpecError
from minicontainer.kvm.memory import GuestMemoryError
from minicontainer.kvm.ports import FW_CFG_DATA, FW_CFG_DMA, FW_CFG_SELECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.bus import Access, Bus
    from minicontainer.kvm.memory import GuestMemory

SIGNATURE, ID, RAM_SIZE, CPUS, CPUS_MAX, DIRECTORY, FILES = 0x00, 0x01, 0x03, 0x05, 0x0F, 0x19, 0x20
FILES_MAX = 4096
ID_TRADITIONAL, ID_DMA = 1, 2
DMA_SIGNATURE = b"QEMU CFG"  # read from the DMA address register
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 1, 2, 4, 8, 16
NAME_MAX = 55  # bytes, before the NUL
ACCESS = struct.Struct(">IIQ")  # FWCfgDmaAccess: control, length, address
CHUNK = 1 << 20  # bytes that one step of a DMA access copies


class FwCfg:
    """The device of one machine, at its ports of ``bus``."""

    def __init__(self, memory: GuestMemory, bus: Bus) -> None:
        self._memory = memory
        self._items = {SIGNATURE: b"QEMU", ID: struct.pack("<I", ID_TRADITIONAL | ID_DMA)}
        self._items[RAM_SIZE] = struct.pack("<Q", memory.size)
        self._key, self._at, self._dma_high = SIGNATURE, 0, 0
        self.names: list[str] = []  # of its files
        self._list_files()
        bus.add_ports(FW_CFG_SELECTOR, 1, self.select)
        bus.add_ports(FW_CFG_DATA, 1, self.data)
        bus.add_ports(FW_CFG_DMA, 8, self.dma)

    def add(self, name: str, content: bytes) -> None:
        """Adds a file, such as "opt/org.example/answer". SpecError: that is no name of a file, or one has it."""
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise SpecError(f"fw_cfg {name}", content, f"must be bytes, not {type(content).__name__}")
        printable = isinstance(name, str) and name.isascii() and name.isprintable()
        if not printable or " " in name or not 0 < len(name) <= NAME_MAX:
            raise SpecError("fw_cfg", name, f"is no name of a file (1 to {NAME_MAX} characters)", "opt/org.example/x")
        if name in self.names:
            raise SpecError("fw_cfg", name, "is there already")
        if len(self.names) == FILES_MAX:
            raise SpecError("fw_cfg", name, f"is one file too many: {FILES_MAX} are there")
        self._items[FILES + len(self.names)] = bytes(content)
        self.names.append(name)
        self._list_files()

    def _list_files(self) -> None:
        numbered = enumerate(self.names, FILES)
        entries = [struct.pack(">IHH56s", len(self._items[n]), n, 0, name.encode("ascii")) for n, name in numbered]
        self._items[DIRECTORY] = struct.pack(">I", len(entries)) + b"".join(entries)

    def announce_cpus(self, count: int) -> None:
        """The number of processors, as firmware asks for it."""
        self._items[CPUS] = self._items[CPUS_MAX] = struct.pack("<H", count)

    def select(self, access: Access) -> int:
        """The selector: an item, from its beginning."""
        if access.write:
            self._key, self._at = access.value & 0xFFFF, 0
        return 0

    def data(self, access: Access) -> int:
        """The next byte of the item; 0 behind its end, and where there is none. Items cannot be written."""
        if access.write:
            return 0
        item = self._items.get(self._key, b"")
        at, self._at = self._at, self._at + 1
        return item[at] if at < len(item) else 0

    def dma(self, access: Access) -> int:
        """The DMA address register, 64 bits, big-endian: the write of its lower half starts the access."""
        offset = access.address - FW_CFG_DMA
        if not access.write:
            return int.from_bytes(DMA_SIGNATURE[offset : offset + access.size], "little")
        value = int.from_bytes(access.value.to_bytes(access.size, "little"), "big")
        if offset == 0 and access.size == 4:
            self._dma_high = value
        elif offset == 4 and access.size == 4:
            high, self._dma_high = self._dma_high, 0
            self._transfer(high << 32 | value)
        return 0

    def _transfer(self, address: int) -> None:
        """Does what the FWCfgDmaAccess at the address says, and writes the outcome to its control field."""
        try:
            control, length, target = ACCESS.unpack(self._memory.read(address, ACCESS.size))
        except GuestMemoryError:
            return  # nowhere to say so
        if control & DMA_SELECT:
            self._key, self._at = control >> 16, 0
        failed = control & DMA_WRITE
        if control & DMA_READ and not failed:
            failed = not self._copy(length, target)
        elif control & DMA_SKIP:
            self._at += length
        self._memory.write(address, struct.pack(">I", DMA_ERROR if failed else 0))

    def _copy(self, length: int, target: int) -> bool:
        """Copies the next ``length`` bytes of the item to guest memory, zeros behind its end; False: it is not all
        memory."""
        item = self._items.get(self._key, b"")
        try:
            self._memory.offset(target, length)
        except GuestMemoryError:
            return False
        while length:
            part = item[self._at : self._at + min(length, CHUNK)].ljust(min(length, CHUNK), b"\0")
            self._memory.write(target, part)
            self._at, target, length = self._at + len(part), target + len(part), length - len(part)
        return True

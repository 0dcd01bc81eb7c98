"""Flat binaries, loaded and entered at one address; boot sectors, with a BIOS that prints."""

from __future__ import annotations

import os

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.kernel import Entry, Kernel, entry_error
from minicontainer.kvm.memory import GuestMemory
from minicontainer.native import LIBEXEC

REAL_ADDRESS = 0x1000  # as in LWN's "Using the KVM API"
ADDRESS = 0x100000  # above a PC's BIOS area
SECTOR_ADDRESS = 0x7C00
BIOS_SEGMENT = 0xF000
BIOS = os.path.join(LIBEXEC, "guests", "bios")
VECTORS = 256
VIDEO = 0x10


def load(kernel: Kernel, memory: GuestMemory, mode: str, load_address: int | None, entry: int | None) -> Entry:
    """A flat binary in real, protected or long mode."""
    default = REAL_ADDRESS if mode == "real" else ADDRESS
    address = default if load_address is None else load_address
    _copy(kernel, memory, address)
    start = address if entry is None else entry
    if reason := entry_error(memory, mode, start):
        raise SpecError("entry", hex(start), reason, "--mode protected" if mode == "real" else "")
    registers = {"rsp": REAL_ADDRESS} if mode == "real" else {}
    return Entry("flat", mode, start, registers, [(address, kernel.size)])


def load_sector(kernel: Kernel, memory: GuestMemory) -> Entry:
    """A boot sector at 0x7c00, entered as by a PC's BIOS: DL is the drive. INT 10h prints; other calls set carry."""
    _copy(kernel, memory, SECTOR_ADDRESS)
    _bios(kernel, memory)
    return Entry("boot-sector", "real", SECTOR_ADDRESS, {"rsp": SECTOR_ADDRESS, "rdx": 0x80}, [(SECTOR_ADDRESS, 512)])


def _copy(kernel: Kernel, memory: GuestMemory, address: int) -> None:
    size = memory.regions[0].size
    if address < 0 or address + kernel.size > size:
        raise kernel.error(
            f"its {kernel.size} bytes at {address:#x} do not fit into memory ({memory.describe()})", "--memory"
        )
    with memory.view(address, kernel.size) as view:
        kernel.read_into(view, 0, "the file")


def _bios(kernel: Kernel, memory: GuestMemory) -> None:
    """Copies csrc/guests/bios.S to F000:0, and sets the interrupt vectors to its handlers. Its first two words are the
    offsets of the handler of INT 10h, and of the handler of all other interrupts."""
    with open(BIOS, "rb") as file:
        code = file.read()
    if memory.size < (BIOS_SEGMENT << 4) + len(code):
        raise kernel.error("a boot sector needs 1 MiB of memory", "--memory 1M")
    memory.write(BIOS_SEGMENT << 4, code)
    video, other = code[:2], code[2:4]
    segment = BIOS_SEGMENT.to_bytes(2, "little")
    memory.write(0, b"".join((video if i == VIDEO else other) + segment for i in range(VECTORS)))

"""The memory layout for Linux, for both boot protocols: memory map, command line, initrd."""

from __future__ import annotations

import os
import struct

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.kernel import Kernel, KernelError
from minicontainer.kvm.memory import HOLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

    from minicontainer.kvm.memory import GuestMemory

    Span = tuple[int, int]  # address, size
else:
    from minicontainer.records import NamedTuple

# Below 1 MiB: tables of the boot protocol, command line; processor tables are placed beside them (kvm/processor.py).
INFO, MEMORY_MAP, COMMAND_LINE, COMMAND_LINE_MAX = 0x6000, 0x7000, 0x20000, 0x8000
LOW_END, RESERVED_END = 0x9FC00, 0x100000  # 640 KiB less the EBDA; 1 MiB
RAM, RESERVED = 1, 2  # e820 types (ACPI 6.5, 15)
BIOS_AREA = (LOW_END, RESERVED_END - LOW_END)
USED = [(INFO, COMMAND_LINE + COMMAND_LINE_MAX - INFO), BIOS_AREA]  # (address, size)
LEAST = 16 << 20
APPEND, SCREEN_APPEND = "console=ttyS0", "console=tty0"
# The screen, if there is one (kvm/screen.py), as a BIOS leaves it: mode 3 of a VGA.
TEXT, COLUMNS, LINES, POINTS = 0xB8000, 80, 25, 16  # address; scan lines of a character
VIDEO_MODE, CRTC_PORT = 3, 0x3D4


# Where a PC starts, F000:FFF0 in real mode. A kernel that finds no other way to restart the machine enters it there.
RESET_VECTOR = 0xFFFF0
RESET_CODE = bytes.fromhex("ba f9 0c b0 06 ee f4 eb fd")  # mov dx, 0xcf9; mov al, 6; out dx, al; hlt; jmp to hlt


E820 = struct.Struct("<QQI")  # a Range, as kernels and firmware read it


class Range(NamedTuple):
    """An entry of the e820 memory map."""

    address: int
    size: int
    kind: int


def default_append(screen: bool) -> str:
    """Linux's command line where the caller gives none."""
    return SCREEN_APPEND if screen else APPEND


def memory_map(memory: GuestMemory) -> list[Range]:
    """The memory map for Linux: the reserved range below 1 MiB contains the ACPI tables."""
    low = memory.regions[0].size
    ranges = [
        Range(0, LOW_END, RAM),
        Range(LOW_END, RESERVED_END - LOW_END, RESERVED),
        Range(RESERVED_END, low - RESERVED_END, RAM),
    ]
    return ranges + [Range(r.address, r.size, RAM) for r in memory.regions[1:]]


def write_reset_code(memory: GuestMemory) -> None:
    """Writes what runs at RESET_VECTOR: it resets the machine by its port."""
    memory.write(RESET_VECTOR, RESET_CODE)


def check_memory(kernel: Kernel, memory: GuestMemory, needed: int, least: int = LEAST) -> None:
    """KernelError: the first region of memory is smaller than ``needed`` and ``least`` bytes."""
    least = max(needed, least)
    if memory.regions[0].size < least:
        raise kernel.error(f"needs {-(-least >> 20)} MiB of memory and has {memory.size >> 20}", "--memory 256M")


def check_low(kernel: Kernel, ranges: list[Span], taken: list[Span] = USED) -> None:
    """KernelError: one of the ranges (address, size) overlaps the machine's tables below 1 MiB."""
    for (start, _), (address, _) in overlaps(ranges, taken):
        raise kernel.error(f"its segment at {start:#x} lies where the machine's tables are, at {address:#x}")


def overlaps(ranges: list[Span], others: list[Span]) -> Iterator[tuple[Span, Span]]:
    """Each pair of ranges (address, size) that have an address in common."""
    for start, length in ranges:
        for address, size in others:
            if start < address + size and address < start + length:
                yield (start, length), (address, size)


def check_info(size: int) -> None:
    """SpecError: what describes the modules is longer than its room."""
    if size > COMMAND_LINE - INFO:
        raise SpecError("initrd", None, f"its names take {size} bytes: at most {COMMAND_LINE - INFO}", "shorter ones")


def command_line(text: str, most: int) -> bytes:
    """The command line with its NUL, ``most`` bytes at most. SpecError: it cannot be one."""
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raise SpecError("append", text, "holds half a character") from None
    if b"\0" in raw:
        raise SpecError("append", text, "holds a NUL byte")
    if len(raw) >= most:
        raise SpecError("append", text, f"has {len(raw)} bytes; this kernel takes {most - 1}")
    return raw + b"\0"


def write_command_line(memory: GuestMemory, append: str | None, most: int) -> tuple[int, int]:
    """Writes the command line; returns its address and length, NUL included."""
    raw = command_line(APPEND if append is None else append, min(most, COMMAND_LINE_MAX))
    memory.write(COMMAND_LINE, raw)
    return COMMAND_LINE, len(raw)


def load_initrd(memory: GuestMemory, path: str | None, above: int, highest: int) -> tuple[int, int]:
    """Reads the initrd to the highest possible address below ``highest``: (address, size); (0, 0) without one."""
    if path is None:
        return 0, 0
    try:
        with Kernel(path) as file:
            end = min(highest, memory.regions[0].size)
            address = (end - file.size) & ~0xFFF
            if address < above:
                reason = f"its {file.size} bytes do not fit between the kernel's end {above:#x} and {end:#x}"
                raise SpecError("initrd", path, reason, _remedy(above, file.size, min(highest, HOLE)))
            memory.read_from(file, address, file.size, 0, "the initrd")
            return address, file.size
    except KernelError as error:
        raise SpecError("initrd", path, error.reason) from None


def _remedy(above: int, size: int, limit: int) -> str:
    """The memory with which an initrd fits below ``limit``, or that none is enough."""
    if above + size <= limit - 0x1000:
        return f"--memory {-(-(above + size + 0x1000) >> 20)}m"
    return f"a smaller or packed one: at most {(limit - above) >> 20} MiB, whatever the memory"

"""The memory layout for Linux, for both boot protocols: memory map, command line, initrd."""

from __future__ import annotations

import os
from typing import NamedTuple

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.kernel import Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory

# Below 1 MiB: tables of the boot protocol, command line; processor tables are placed beside them (kvm/processor.py).
INFO, MEMORY_MAP, COMMAND_LINE, COMMAND_LINE_MAX = 0x6000, 0x7000, 0x20000, 0x8000
LOW_END, RESERVED_END = 0x9FC00, 0x100000  # 640 KiB less the EBDA; 1 MiB
RAM, RESERVED = 1, 2  # e820 types (ACPI 6.5, 15)
USED = [(INFO, COMMAND_LINE + COMMAND_LINE_MAX - INFO), (LOW_END, RESERVED_END - LOW_END)]  # (address, size)
LEAST = 16 << 20
APPEND = "console=ttyS0"


class Range(NamedTuple):
    """An entry of the e820 memory map."""

    address: int
    size: int
    kind: int


def memory_map(memory: GuestMemory) -> list[Range]:
    """The memory map for Linux: the reserved range below 1 MiB contains the ACPI tables."""
    low = memory.regions[0].size
    ranges = [
        Range(0, LOW_END, RAM),
        Range(LOW_END, RESERVED_END - LOW_END, RESERVED),
        Range(RESERVED_END, low - RESERVED_END, RAM),
    ]
    return ranges + [Range(r.address, r.size, RAM) for r in memory.regions[1:]]


def check_memory(kernel: Kernel, memory: GuestMemory, needed: int) -> None:
    """KernelError: the first region of memory is smaller than ``needed`` bytes."""
    least = max(needed, LEAST)
    if memory.regions[0].size < least:
        raise kernel.error(f"needs {-(-least >> 20)} MiB of memory and has {memory.size >> 20}", "--memory 256M")


def write_command_line(memory: GuestMemory, append: str | None, most: int) -> tuple[int, int]:
    """Writes the command line; returns its address and length, NUL included."""
    text = APPEND if append is None else append
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raise SpecError("append", text, "holds half a character") from None
    limit = min(most, COMMAND_LINE_MAX)
    if b"\0" in raw:
        raise SpecError("append", text, "holds a NUL byte")
    if len(raw) >= limit:
        raise SpecError("append", text, f"has {len(raw)} bytes; this kernel takes {limit - 1}")
    memory.write(COMMAND_LINE, raw + b"\0")
    return COMMAND_LINE, len(raw) + 1


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
                raise SpecError("initrd", path, reason, "--memory")
            with memory.view(address, file.size) as view:
                file.read_into(view, 0, "the initrd")
            return address, file.size
    except KernelError as error:
        raise SpecError("initrd", path, error.reason) from None

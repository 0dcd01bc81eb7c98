"""The PVH entry (Xen docs/misc/pvh.pandoc; Linux arch/x86/platform/pvh): 32-bit, no paging, RBX points to the start
info."""

from __future__ import annotations

import struct

from minicontainer.kvm import acpi
from minicontainer.kvm.boot import elf, pc
from minicontainer.kvm.boot.kernel import Entry, Kernel
from minicontainer.kvm.memory import GuestMemory

START_MAGIC = 0x336EC578  # "xEn3"
START_INFO = struct.Struct("<IIIIQQQQII")  # struct hvm_start_info, version 1 (Xen public/arch-x86/hvm/start_info.h)
MODULE = struct.Struct("<QQQQ")
RANGE = struct.Struct("<QQII")
COMMAND_LINE_MAX = 2048  # Linux: COMMAND_LINE_SIZE
HIGHEST_INITRD = 0x7FFFFFFF


def load(kernel: Kernel, memory: GuestMemory, headers: elf.Elf, initrd: str | None, append: str | None) -> Entry:
    """Loads an ELF kernel with a PVH note, its initrd and its command line."""
    end = max(s.paddr + s.memsz for s in headers.segments)
    pc.check_memory(kernel, memory, end)
    _check_low(kernel, headers.segments)
    assert headers.pvh is not None
    entry = elf.load(kernel, memory, headers._replace(entry=headers.pvh), "protected", None)
    command_line, _ = pc.write_command_line(memory, append, COMMAND_LINE_MAX)
    address, size = pc.load_initrd(memory, initrd, max(end, pc.RESERVED_END), HIGHEST_INITRD + 1)
    _write_start_info(memory, command_line, address, size)
    used = [*entry.used, *pc.USED, (address, size)]
    return entry._replace(kind="pvh", registers={"rbx": pc.INFO}, used=used, irqchip=True, linux=True)


def _check_low(kernel: Kernel, segments: list[elf.Segment]) -> None:
    """KernelError: a segment overlaps the machine's tables below 1 MiB."""
    for s in segments:
        for address, size in pc.USED:
            if s.paddr < address + size and address < s.paddr + s.memsz:
                raise kernel.error(f"its segment at {s.paddr:#x} lies where the machine's tables are, at {address:#x}")


def _write_start_info(memory: GuestMemory, command_line: int, initrd: int, size: int) -> None:
    modules = pc.INFO + START_INFO.size
    ranges = pc.memory_map(memory)
    memory.write(modules, MODULE.pack(initrd, size, 0, 0))
    memory.write(pc.MEMORY_MAP, b"".join(RANGE.pack(r.address, r.size, r.kind, 0) for r in ranges))
    info = START_INFO.pack(
        START_MAGIC, 1, 0, int(size > 0), modules, command_line, acpi.ADDRESS, pc.MEMORY_MAP, len(ranges), 0
    )
    memory.write(pc.INFO, info)

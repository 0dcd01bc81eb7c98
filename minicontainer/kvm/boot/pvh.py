"""The PVH entry (Xen docs/misc/pvh.pandoc; Linux arch/x86/platform/pvh): 32-bit, no paging, RBX points to the start
info."""

from __future__ import annotations

import struct

from minicontainer.kvm.boot import elf
from minicontainer.kvm.boot.format import LINUX_MEMORY, Usual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Entry, Kernel
    from minicontainer.kvm.memory import GuestMemory

START_MAGIC = 0x336EC578  # "xEn3"
START_INFO = struct.Struct("<IIIIQQQQII")  # struct hvm_start_info, version 1 (Xen public/arch-x86/hvm/start_info.h)
MODULE = struct.Struct("<QQQQ")
RANGE = struct.Struct("<QQII")
COMMAND_LINE_MAX = 2048  # Linux: COMMAND_LINE_SIZE
HIGHEST_INITRD = 0x7FFFFFFF


class Pvh(Usual):
    """The format of ELF kernels with a PVH note: Linux, and others."""

    name, modes, options = "pvh", ("pvh",), ("initrd", "append")

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return kernel.head.startswith(elf.MAGIC) and elf.parse(kernel).pvh is not None

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        elf.parse(kernel)
        return LINUX_MEMORY

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        return load(kernel, memory, elf.parse(kernel), options.initrd, options.append)


FORMATS = (Pvh(),)


def load(kernel: Kernel, memory: GuestMemory, headers: elf.Elf, initrd: str | None, append: str | None) -> Entry:
    """Loads an ELF kernel with a PVH note, its initrd and its command line."""
    from minicontainer.kvm.boot import pc

    end = headers.end
    pc.check_memory(kernel, memory, end)
    pc.check_low(kernel, [(s.paddr, s.memsz) for s in headers.segments])
    assert headers.pvh is not None
    entry = elf.load(kernel, memory, headers._replace(entry=headers.pvh), "protected", None)
    command_line, _ = pc.write_command_line(memory, append, COMMAND_LINE_MAX)
    address, size = pc.load_initrd(memory, initrd, max(end, pc.RESERVED_END), HIGHEST_INITRD + 1)
    _write_start_info(memory, command_line, address, size)
    used = [*entry.used, *pc.USED, (address, size)]
    return entry._replace(kind="pvh", registers={"rbx": pc.INFO}, used=used, irqchip=True, linux=True)


def _write_start_info(memory: GuestMemory, command_line: int, initrd: int, size: int) -> None:
    from minicontainer.kvm import acpi
    from minicontainer.kvm.boot import pc

    modules = pc.INFO + START_INFO.size
    ranges = pc.memory_map(memory)
    memory.write(modules, MODULE.pack(initrd, size, 0, 0))
    memory.write(pc.MEMORY_MAP, b"".join(RANGE.pack(r.address, r.size, r.kind, 0) for r in ranges))
    info = START_INFO.pack(
        START_MAGIC, 1, 0, int(size > 0), modules, command_line, acpi.ADDRESS, pc.MEMORY_MAP, len(ranges), 0
    )
    memory.write(pc.INFO, info)

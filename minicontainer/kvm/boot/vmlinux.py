"""Linux that is not packed, by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst): an ELF file without a
PVH note, or the kernel's bytes as they are in memory, with the address where they go."""

from __future__ import annotations

import struct

from minicontainer.errors import SpecError
from minicontainer.kvm.boot import elf
from minicontainer.kvm.boot.format import LINUX_MEMORY, Usual
from minicontainer.kvm.boot.kernel import entry_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Entry, Kernel
    from minicontainer.kvm.memory import GuestMemory

MODE = "linux64"
COMMAND_LINE_MAX = 2048  # Linux: COMMAND_LINE_SIZE
HIGHEST_INITRD = 0x7FFFFFFF
# The header that a bzImage would have: a kernel looks at its mark, and at what a loader writes into it.
HEADER = bytearray(0x268 - 0x1F1)
struct.pack_into("<H", HEADER, 0x1FE - 0x1F1, 0xAA55)
struct.pack_into("<4sH", HEADER, 0x202 - 0x1F1, b"HdrS", 0x20C)
struct.pack_into("<I", HEADER, 0x230 - 0x1F1, 0x1000000)  # kernel_alignment


class Vmlinux(Usual):
    """The format of an ELF file of 64 bits. It is chosen by its mode alone: nothing in the file says Linux."""

    name, modes, options = "vmlinux", (MODE,), ("entry", "initrd", "append")

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return elf.is_elf(kernel, 64)

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        elf.parse(kernel)
        return LINUX_MEMORY

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        from minicontainer.kvm.boot import pc

        headers = elf.parse(kernel)
        pc.check_memory(kernel, memory, headers.end)
        pc.check_low(kernel, [(s.paddr, s.memsz) for s in headers.segments])
        entry = elf.load(kernel, memory, headers, "long", options.entry)
        return _with_zero_page(entry, memory, headers.end, options)._replace(kind=self.name)


class Image(Usual):
    """The format of the kernel's bytes as they are, which any file has."""

    name, modes = "image", (MODE,)
    as_flat = True
    options = ("load_address", "entry", "initrd", "append")

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return not kernel.head.startswith(elf.MAGIC)

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        return LINUX_MEMORY

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        from minicontainer.kvm.boot import flat, pc

        if options.load_address is None:
            raise SpecError("mode", MODE, f"{kernel.path} does not say where it goes", "--load-address, and --entry")
        end = options.load_address + kernel.size
        pc.check_memory(kernel, memory, end)
        pc.check_low(kernel, [(options.load_address, kernel.size)])
        loaded = flat.FORMATS[0].load(kernel, memory, options._replace(mode="long"))
        if reason := entry_error(memory, "long", loaded.rip):
            raise SpecError("entry", hex(loaded.rip), reason)
        return _with_zero_page(loaded, memory, end, options)._replace(kind=self.name)


FORMATS = (Vmlinux(), Image())


def _with_zero_page(entry: Entry, memory: GuestMemory, end: int, options: Options) -> Entry:
    from minicontainer.kvm.boot import linux, pc, setup

    end = max(end, pc.RESERVED_END)
    header = setup.Setup(True, 0, 0, end, HIGHEST_INITRD, COMMAND_LINE_MAX, (0, 0), bytes(HEADER))
    page, used = linux.zero_page(header, memory, options)
    memory.write(pc.INFO, page)
    return entry._replace(registers={"rsi": pc.INFO}, used=[*entry.used, *used], irqchip=True, linux=True)

"""bzImages by the 16-bit boot protocol (Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"): the
kernel's own setup code runs, in real mode, with a BIOS that prints. iPXE has no other entry.
"""

from __future__ import annotations

import struct

from minicontainer.kvm.boot import bios, pc
from minicontainer.kvm.boot.kernel import Entry
from minicontainer.kvm.boot.setup import COMMAND_LINE, LOADER_TYPE, RAMDISK, UNDEFINED_LOADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.boot.setup import Setup
    from minicontainer.kvm.memory import GuestMemory

# Where the setup code goes, and offsets from there: of its heap's and stack's end, and of its entry.
SEGMENT, HEAP_END, ENTRY_SEGMENT = 0x9000, 0xE000, 0x20
LOAD_FLAGS, START_32, HEAP_END_FIELD = 0x211, 0x214, 0x224  # START_32: code32_start
HEAP_BELOW = 0x200  # boot.rst, heap_end_ptr: "minus 0x0200"
CAN_USE_HEAP = 0x80


def is_only_way(kernel: Kernel) -> bool:
    """Whether the header says that nothing is to be entered in 32-bit mode."""
    return kernel.head[START_32 : START_32 + 4] == bytes(4)


def load(kernel: Kernel, setup: Setup, memory: GuestMemory, options: Options) -> Entry:
    """Loads the setup code, command line and initrd; the rest of the kernel is in its place. A kernel without another
    entry is no Linux, whose consoles the default command line is for: iPXE would take it for a command."""
    append = options.append
    if append is None:
        append = "" if is_only_way(kernel) else pc.default_append(options.screen)
    command_line, _ = pc.write_command_line(memory, append, setup.command_line_max)
    initrd, size = pc.load_initrd(memory, options.initrd, setup.needed, setup.initrd_max + 1)
    code = bytearray(kernel.read(0, setup.protected, "its setup code"))
    code[LOADER_TYPE] = UNDEFINED_LOADER
    code[LOAD_FLAGS] |= CAN_USE_HEAP
    struct.pack_into("<II", code, RAMDISK, initrd, size)
    struct.pack_into("<H", code, HEAP_END_FIELD, HEAP_END - HEAP_BELOW)
    struct.pack_into("<I", code, COMMAND_LINE, command_line)
    memory.write(SEGMENT << 4, bytes(code))
    bios.write(kernel, memory, screen=options.screen)
    bios.write_data(memory, screen=options.screen)
    used = [*bios.USED, *pc.USED, (SEGMENT << 4, HEAP_END), (initrd, size)]
    registers = {"rsp": HEAP_END}
    return Entry("bzimage", "real", 0, registers, used, SEGMENT, ENTRY_SEGMENT, irqchip=True)

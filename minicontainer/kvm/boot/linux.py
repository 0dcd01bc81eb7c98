"""bzImages (Linux Documentation/arch/x86/boot.rst): the 64-bit boot protocol, or the PVH entry of the packed kernel.

A bzImage unpacks itself in the guest. If its compression format is supported here, the host unpacks it instead, which
is faster, and the kernel is entered through PVH.
"""

from __future__ import annotations

import struct

from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.kvm import acpi
from minicontainer.kvm.boot import pc, realmode
from minicontainer.kvm.boot.format import LINUX_MEMORY, Options, Usual
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError
from minicontainer.kvm.boot.setup import (
    COMMAND_LINE,
    ENTRY_64,
    HEADER,
    LOAD_ADDRESS,
    LOADER_TYPE,
    RAMDISK,
    UNDEFINED_LOADER,
    Setup,
    parse,
)
from minicontainer.kvm.memory import GuestMemory

# Offsets in the zero page.
RSDP, E820_ENTRIES, E820_TABLE = 0x070, 0x1E8, 0x2D0
# struct screen_info (Linux include/uapi/linux/screen_info.h), the first of the zero page: mode, columns, what INT 10h
# with BL = 10h returns in BX (colour, 256 KiB), lines, that it is a VGA, scan lines of a character.
SCREEN_INFO = struct.Struct("<6xBB2xH2xBBH")
EGA_BX = 0x0003


class BzImage(Usual):
    """The format. Modes: pvh (unpacked here) where that is possible, linux (the 64-bit protocol, or the 32-bit one of a
    kernel without a 64-bit entry), linux32, and linux16 for a kernel that has no other entry."""

    name, modes, options = "bzimage", ("linux", "pvh", "linux32", "linux16"), ("initrd", "append")

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return kernel.head[0x202:0x206] == b"HdrS"  # Linux Documentation/arch/x86/boot.rst

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        parse(kernel)
        return LINUX_MEMORY

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        setup = parse(kernel)
        if options.mode == "pvh" or (options.mode is None and not options.screen):  # PVH tells nothing of a screen
            entry = _load_payload(kernel, setup.payload, memory, options)
            if isinstance(entry, Entry):
                return entry
            if options.mode == "pvh":
                raise SpecError("mode", "pvh", f"{kernel.path}: {entry}", "--mode linux")
        pc.check_memory(kernel, memory, setup.needed)
        memory.read_from(kernel, LOAD_ADDRESS, setup.size, setup.protected, "the kernel")
        if options.mode == "linux16" or (options.mode is None and realmode.is_only_way(kernel)):
            entry = realmode.load(kernel, setup, memory, options)
        else:
            entry = _prepare(setup, memory, options, wide=setup.wide and options.mode != "linux32")
        return entry._replace(used=[(LOAD_ADDRESS, setup.needed - LOAD_ADDRESS), *entry.used])


FORMATS = (BzImage(),)


def _load_payload(kernel: Kernel, payload: tuple[int, int], memory: GuestMemory, options: Options) -> Entry | str:
    """Unpacks the payload at (offset, length) of the file and loads it. A string: why it cannot be loaded."""
    from minicontainer.kvm.boot import kept, unpack

    offset, length = payload
    if length < 8:
        return "it does not say where its payload is"
    start = kernel.read(offset, 8, "its payload")
    end = kernel.read(offset + length - 4, 4, "its payload")  # appended by Linux's build (boot.rst, "payload_length")
    size = int.from_bytes(end, "little")
    if not start.startswith(tuple(unpack.FORMATS)):
        return f"its payload's format (it begins with {start[:4].hex(' ')}) is unknown here"
    if max(size, length) > memory.size:
        sizes = f"its payload of {length >> 20} MiB unpacks to {size >> 20}"
        return f"{sizes} MiB, and there are {memory.size >> 20} MiB of memory"
    try:
        packed = kernel.read(offset, length, "its payload")
        inner = kept.unpacked(kernel.path, packed, size)
    except UnsupportedError as error:
        return str(error)
    if inner is None:
        return "its payload is damaged"
    with inner:
        return _enter_payload(inner, memory, options)


def _enter_payload(inner: Kernel, memory: GuestMemory, options: Options) -> Entry | str:
    from minicontainer.kvm.boot import elf, pvh

    try:
        if not elf.is_elf(inner, 64):
            return "its payload is no ELF file"
        headers = elf.parse(inner)
        if headers.pvh is None:
            return "it has no PVH note (CONFIG_PVH)"
        return pvh.load(inner, memory, headers, options.initrd, options.append)
    except KernelError as error:
        return error.reason


def _prepare(setup: Setup, memory: GuestMemory, options: Options, *, wide: bool) -> Entry:
    """Prepares the entry of what is packed, and unpacks itself, by the 64-bit or by the 32-bit protocol."""
    page, used = zero_page(setup, memory, options)
    memory.write(pc.INFO, page)
    mode, entry = ("long", LOAD_ADDRESS + ENTRY_64) if wide else ("protected", LOAD_ADDRESS)
    return Entry("bzimage", mode, entry, {"rsi": pc.INFO}, used, irqchip=True, linux=True)


def zero_page(setup: Setup, memory: GuestMemory, options: Options) -> tuple[bytes, list[tuple[int, int]]]:
    """struct boot_params (Linux Documentation/arch/x86/zero-page.rst), for pc.INFO. Writes the command line and loads
    the initrd; returns the memory that all this uses, too."""
    append = pc.default_append(options.screen) if options.append is None else options.append
    command_line, _ = pc.write_command_line(memory, append, setup.command_line_max)
    initrd, size = pc.load_initrd(memory, options.initrd, setup.needed, setup.initrd_max + 1)
    page = bytearray(4096)
    if options.screen:
        page[: SCREEN_INFO.size] = screen_info()
    page[HEADER : HEADER + len(setup.header)] = setup.header
    page[LOADER_TYPE] = UNDEFINED_LOADER
    struct.pack_into("<II", page, RAMDISK, initrd, size)
    struct.pack_into("<I", page, COMMAND_LINE, command_line)
    struct.pack_into("<Q", page, RSDP, acpi.ADDRESS)
    ranges = pc.memory_map(memory)
    page[E820_ENTRIES] = len(ranges)
    page[E820_TABLE : E820_TABLE + pc.E820.size * len(ranges)] = b"".join(pc.E820.pack(*r) for r in ranges)
    return bytes(page), [*pc.USED, (initrd, size)]


def screen_info() -> bytes:
    """struct screen_info of the screen, by which Linux finds its VGA (drivers/video/console/vgacon.c)."""
    return SCREEN_INFO.pack(pc.VIDEO_MODE, pc.COLUMNS, EGA_BX, pc.LINES, 1, pc.POINTS)

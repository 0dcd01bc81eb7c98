"""bzImages (Linux Documentation/arch/x86/boot.rst): the 64-bit boot protocol, or the PVH entry of the packed kernel.

A bzImage unpacks itself in the guest. If its compression format is supported here, the host unpacks it instead, which
is faster, and the kernel is entered through PVH.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from minicontainer.errors import SpecError
from minicontainer.kvm import acpi
from minicontainer.kvm.boot import pc
from minicontainer.kvm.boot.kernel import Entry, Kernel
from minicontainer.kvm.memory import GuestMemory

SECTOR = 512
OLDEST = 0x020C  # the first protocol with a 64-bit entry
XLF_KERNEL_64, LOADED_HIGH = 1, 1
LOAD_ADDRESS = 0x100000
ENTRY_64 = 0x200  # offset from the load address
# Offsets in the zero page, which are those of the setup header in the file (boot.rst, "Details of header fields").
HEADER, LOADER_TYPE, RAMDISK, COMMAND_LINE = 0x1F1, 0x210, 0x218, 0x228
RSDP, E820_ENTRIES, E820_TABLE = 0x070, 0x1E8, 0x2D0
UNDEFINED_LOADER = 0xFF
E820 = struct.Struct("<QQI")
HEADER_LEAST, HEADER_MOST = 0x268, 0x290  # end of the header: in protocol 2.12; the most that fits the zero page


class Setup(NamedTuple):
    """The values of the setup header."""

    protected: int  # offset in the file of the protected-mode kernel
    size: int  # its bytes
    needed: int  # end of the memory that the kernel uses before it reads the memory map (init_size)
    initrd_max: int
    command_line_max: int
    payload: tuple[int, int]  # offset in the file, bytes
    header: bytes


def parse(kernel: Kernel) -> Setup:
    """Reads and checks the setup header."""
    head = kernel.head
    if len(head) < HEADER_LEAST:
        raise kernel.error(f"its setup header is cut off at {len(head)} bytes")
    (version,) = struct.unpack_from("<H", head, 0x206)
    (xload,) = struct.unpack_from("<H", head, 0x236)
    if version < OLDEST or not xload & XLF_KERNEL_64:
        raise kernel.error(f"has no 64-bit entry (boot protocol {version >> 8}.{version & 0xFF:02})", "a 64-bit kernel")
    if not head[0x211] & LOADED_HIGH:
        raise kernel.error("is a zImage, to be loaded below 1 MiB")
    protected = ((head[0x1F1] or 4) + 1) * SECTOR
    (syssize,) = struct.unpack_from("<I", head, 0x1F4)
    # boot.rst: syssize is "in 16-byte paragraphs"; the last may be incomplete (memtest86+ 6.10 and 7.20 of Debian).
    least = protected + max(16 * syssize - 15, ENTRY_64 + 1)
    if kernel.size < least:
        raise kernel.error(f"is cut off at {kernel.size} bytes: it says that it has at least {least}")
    (initrd_max,) = struct.unpack_from("<I", head, 0x22C)
    (command_line_max,) = struct.unpack_from("<I", head, 0x238)
    offset, length = struct.unpack_from("<II", head, 0x248)
    (preferred,) = struct.unpack_from("<Q", head, 0x258)
    (init_size,) = struct.unpack_from("<I", head, 0x260)
    end = 0x202 + head[0x201]  # boot.rst, "The real-mode kernel header": the jump over it encodes its length
    if end < HEADER_LEAST:
        raise kernel.error(f"its setup header ends at {end:#x}, before {HEADER_LEAST:#x}")
    size = kernel.size - protected
    return Setup(
        protected,
        size,
        max(max(preferred, LOAD_ADDRESS) + init_size, LOAD_ADDRESS + size),
        initrd_max,
        command_line_max + 1,
        (protected + offset, length),
        head[HEADER : min(end, HEADER_MOST)],
    )


def load_bzimage(
    kernel: Kernel, memory: GuestMemory, mode: str | None, initrd: str | None, append: str | None
) -> Entry:
    """``mode``: linux (64-bit protocol), pvh (unpacked here), or None: pvh if possible, else linux."""
    setup = parse(kernel)
    if mode != "linux":
        from minicontainer.kvm.boot import payload

        entry = payload.load(kernel, setup.payload, memory, initrd, append)
        if isinstance(entry, Entry):
            return entry
        if mode == "pvh":
            raise SpecError("mode", "pvh", f"{kernel.path}: {entry}", "--mode linux")
    return _load_64(kernel, setup, memory, initrd, append)


def _load_64(kernel: Kernel, setup: Setup, memory: GuestMemory, initrd: str | None, append: str | None) -> Entry:
    pc.check_memory(kernel, memory, setup.needed)
    with memory.view(LOAD_ADDRESS, setup.size) as view:
        kernel.read_into(view, setup.protected, "the kernel")
    command_line, _ = pc.write_command_line(memory, append, setup.command_line_max)
    address, size = pc.load_initrd(memory, initrd, setup.needed, setup.initrd_max + 1)
    memory.write(pc.INFO, _zero_page(setup, memory, command_line, address, size))
    used = [*pc.USED, (LOAD_ADDRESS, setup.needed - LOAD_ADDRESS), (address, size)]
    return Entry("bzimage", "long", LOAD_ADDRESS + ENTRY_64, {"rsi": pc.INFO}, used, irqchip=True, linux=True)


def _zero_page(setup: Setup, memory: GuestMemory, command_line: int, initrd: int, initrd_size: int) -> bytes:
    """struct boot_params (Linux Documentation/arch/x86/zero-page.rst)."""
    page = bytearray(4096)
    page[HEADER : HEADER + len(setup.header)] = setup.header
    page[LOADER_TYPE] = UNDEFINED_LOADER
    struct.pack_into("<II", page, RAMDISK, initrd, initrd_size)
    struct.pack_into("<I", page, COMMAND_LINE, command_line)
    struct.pack_into("<Q", page, RSDP, acpi.ADDRESS)
    ranges = pc.memory_map(memory)
    page[E820_ENTRIES] = len(ranges)
    page[E820_TABLE : E820_TABLE + E820.size * len(ranges)] = b"".join(E820.pack(*r) for r in ranges)
    return bytes(page)

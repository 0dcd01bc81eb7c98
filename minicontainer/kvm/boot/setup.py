"""The setup header of a bzImage (Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header")."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.kvm.boot.kernel import Kernel
else:
    from minicontainer.records import NamedTuple

SECTOR = 512
OLDEST, WIDE = 0x0202, 0x020C  # the first protocols with a command line anywhere, and with a 64-bit entry
XLF_KERNEL_64, LOADED_HIGH = 1, 1
LOAD_ADDRESS = 0x100000
ENTRY_64 = 0x200  # offset from the load address
# Offsets of fields in the file, which are those in the zero page too.
HEADER, LOADER_TYPE, RAMDISK, COMMAND_LINE = 0x1F1, 0x210, 0x218, 0x228
UNDEFINED_LOADER = 0xFF
HEADER_LEAST, HEADER_MOST = 0x268, 0x290  # end of the header: in protocol 2.12; the most that fits the zero page


class Setup(NamedTuple):
    """The values of the setup header."""

    wide: bool  # whether there is a 64-bit entry
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
    if version < OLDEST:
        raise kernel.error(f"takes no command line in 32 bits (boot protocol {version >> 8}.{version & 0xFF:02})")
    if not head[0x211] & LOADED_HIGH:
        raise kernel.error("is a zImage, to be loaded below 1 MiB")
    protected = ((head[0x1F1] or 4) + 1) * SECTOR
    (syssize,) = struct.unpack_from("<I", head, 0x1F4)
    # boot.rst: syssize is "in 16-byte paragraphs"; the last may be incomplete (memtest86+ 6.10 and 7.20 of Debian).
    least = protected + max(16 * syssize - 15, ENTRY_64 + 1)
    if kernel.size < least:
        raise kernel.error(f"is cut off at {kernel.size} bytes: it says that it has at least {least}")
    end = 0x202 + head[0x201]  # boot.rst, "The real-mode kernel header": the jump over it encodes its length
    if version >= WIDE and end < HEADER_LEAST:
        raise kernel.error(f"its setup header ends at {end:#x}, before {HEADER_LEAST:#x}")

    def field(since: int, offset: int, layout: str, default: int) -> int:
        return int(struct.unpack_from(layout, head, offset)[0]) if version >= since else default

    offset, length = field(0x208, 0x248, "<I", 0), field(0x208, 0x24C, "<I", 0)
    size = kernel.size - protected
    start, init_size = max(field(0x20A, 0x258, "<Q", 0), LOAD_ADDRESS), field(0x20A, 0x260, "<I", 0)
    return Setup(
        bool(field(WIDE, 0x236, "<H", 0) & XLF_KERNEL_64),
        protected,
        size,
        max(start + init_size, LOAD_ADDRESS + size),
        field(0x203, 0x22C, "<I", 0x37FFFFFF),
        field(0x206, 0x238, "<I", 255) + 1,
        (protected + offset, length),
        head[HEADER : max(HEADER, min(end, HEADER_MOST))],
    )

"""A BIOS that prints (csrc/guests/bios.S), and a PC's BIOS data area: for boot sectors, and for kernels that ask it."""

from __future__ import annotations

import os
import struct

from minicontainer.kvm.boot import pc
from minicontainer.kvm.ports import COM1
from minicontainer.native import LIBEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.memory import GuestMemory

SEGMENT = 0xF000
PATH = os.path.join(LIBEXEC, "guests", "bios")
VECTORS, VIDEO = 256, 0x10
DATA = 0x400
DATA_AREA = (DATA, 0x100)
# Mode, columns, bytes of a page, its address; cursor (first and last line), page, port, the CGA's two registers.
VIDEO_DATA = struct.Struct("<BHHH16xHBHBB")
PAGE, CURSOR = 0x1000, 0x0D0E
EQUIPMENT_COLOUR = 0x20  # a screen of 80 columns in colour
CGA_MODE, CGA_COLOURS = 0x29, 0x30  # text of 80 columns, with blinking
USED = [(0, DATA + 0x100)]  # (address, size), beside what is reserved below 1 MiB


def write(kernel: Kernel, memory: GuestMemory, *, screen: bool = False) -> None:
    """Copies the code to F000:0, and sets the interrupt vectors to its handlers. Its first words are the offsets of the
    handler of INT 10h without a screen, of the handler of all other interrupts, which set carry (they are not
    supported), and of the handler of INT 10h with a screen."""
    with open(PATH, "rb") as file:
        code = file.read()
    if memory.size < (SEGMENT << 4) + len(code):
        raise kernel.error("needs 1 MiB of memory, for a BIOS", "--memory 1M")
    memory.write(SEGMENT << 4, code)
    video, other = code[4:6] if screen else code[:2], code[2:4]
    segment = SEGMENT.to_bytes(2, "little")
    memory.write(0, b"".join((video if i == VIDEO else other) + segment for i in range(VECTORS)))
    if screen:
        write_video_data(memory)


def write_data(memory: GuestMemory, *, screen: bool = False) -> None:
    """Writes what kernels read of the data area. Xen, for one, puts its first code below the EBDA that this names
    (arch/x86/boot/head.S)."""
    memory.write(DATA, COM1.to_bytes(2, "little"))
    memory.write(DATA + 0x0E, (pc.LOW_END >> 4).to_bytes(2, "little"))  # segment of the EBDA
    memory.write(DATA + 0x13, (pc.LOW_END >> 10).to_bytes(2, "little"))  # KiB of memory below it
    memory.write(pc.LOW_END, b"\1")  # KiB of the EBDA
    if screen:
        write_video_data(memory)


def write_video_data(memory: GuestMemory) -> None:
    """Writes what the data area says of the screen in mode 3 ("RBIL", MEMORY.LST)."""
    memory.write(DATA + 0x10, EQUIPMENT_COLOUR.to_bytes(2, "little"))
    memory.write(
        DATA + 0x49, VIDEO_DATA.pack(pc.VIDEO_MODE, pc.COLUMNS, PAGE, 0, CURSOR, 0, pc.CRTC_PORT, CGA_MODE, CGA_COLOURS)
    )
    memory.write(DATA + 0x84, struct.pack("<BH", pc.LINES - 1, pc.POINTS))

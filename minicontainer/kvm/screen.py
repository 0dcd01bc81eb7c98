"""The text screen of a machine: what a monitor at its VGA shows.

    with Machine(screen=True) as m:
        m.load("kernel.bin")
        m.run(timeout=5)
        print("\\n".join(m.screen.text()))

Theory of operation. The text memory is memory of the guest like any other, so writing to it causes no exit; whoever
wants to see the screen reads it. The registers (kvm/vga.py) say which part of it is shown, and where the cursor is.
There are no fonts and no planes: a kernel in graphics mode is not shown.
"""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.kvm import vga
from minicontainer.kvm.boot import pc
from minicontainer.kvm.vga import Vga

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.kvm.boot.kernel import Entry
    from minicontainer.kvm.memory import GuestMemory
else:
    from minicontainer.records import NamedTuple

SIZE = 0x8000  # of the text memory
CELLS = SIZE // 2  # each of a character and an attribute
BLANK = b"\x20\x07"  # a space, grey on black
# Bits of registers.
CURSOR_OFF, LINE = 0x20, 0x1F  # cursor start; a scan line in a character: cursor start and end, maximum scan line
SCAN_DOUBLING = 0x80  # maximum scan line
BLINK = 0x08  # attribute controller's mode control
# Code page 437 as the VGA shows it: 1 to 31 and 127 are no controls there; 0 and 255 are blank.
GLYPHS = (
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
    + bytes(range(32, 127)).decode("ascii")
    + "⌂"
    + bytes(range(128, 255)).decode("cp437")
    + " "
)


class Frame(NamedTuple):
    """What is shown at one moment.

    rows    the cells of each line: two bytes each, character and attribute
    cursor  its line and column; None: it is not shown
    blinks  bit 7 of an attribute is blinking, not a bright background
    hidden  why no text is shown, and there are no rows; "": it is shown"""

    rows: list[bytes]
    cursor: tuple[int, int] | None
    blinks: bool
    hidden: str


class Screen:
    """The screen of one machine. SpecError: its memory does not reach to the text memory."""

    def __init__(self, memory: GuestMemory) -> None:
        end = memory.regions[0].size
        if end < pc.TEXT + SIZE:
            raise SpecError("screen", None, f"is at {pc.TEXT:#x}, and memory ends at {end:#x}", "--memory 1m")
        self.memory, self.vga = memory, Vga()
        memory.write(pc.TEXT, BLANK * CELLS)

    def reserve(self, entry: Entry) -> Entry:
        """The entry with the text memory as memory that is occupied. SpecError: the kernel is there."""
        if pc.BIOS_AREA in entry.used:
            return entry  # which contains it
        place = (pc.TEXT, SIZE)
        for (start, size), _ in pc.overlaps(entry.used, [place]):
            where = f"the kernel is at {start:#x} to {start + size:#x}"
            raise SpecError("screen", None, f"is at {pc.TEXT:#x}, and {where}", "--load-address")
        return entry._replace(used=[*entry.used, place])

    def text(self) -> list[str]:
        """The lines of the screen, without blanks at their ends; none if no text is shown (``hidden``)."""
        return [text(row).rstrip() for row in self.frame().rows]

    @property
    def hidden(self) -> str:
        """Why no text is shown, such as a switch to graphics mode; "": it is shown."""
        return self.vga.hides()

    @property
    def cursor(self) -> tuple[int, int] | None:
        """Line and column of the cursor, from 0 on; None: it is not shown."""
        return self.frame().cursor

    def frame(self) -> Frame:
        """What is shown now."""
        blinks = bool(self.vga.attribute.registers[vga.MODE_CONTROL] & BLINK)
        hidden = self.hidden
        if hidden:
            return Frame([], None, blinks, hidden)
        crtc = self.vga.crtc
        columns, rows, pitch = self._shape()
        start = crtc.word(vga.START_ADDRESS) % CELLS
        memory = self.memory.read(pc.TEXT, SIZE)
        return Frame(
            [_row(memory, (start + pitch * row) % CELLS, columns) for row in range(rows)],
            self._cursor((crtc.word(vga.CURSOR_LOCATION) - start) % CELLS, (columns, rows, pitch)),
            blinks,
            "",
        )

    def _shape(self) -> tuple[int, int, int]:
        """Columns, lines, and cells from a line to the next one."""
        registers = self.vga.crtc.registers
        overflow, scan = registers[vga.OVERFLOW], registers[vga.MAXIMUM_SCAN_LINE]
        shown = 1 + (registers[vga.VERTICAL_DISPLAY_END] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3)
        height = (1 + (scan & LINE)) * (2 if scan & SCAN_DOUBLING else 1)
        return registers[vga.END_HORIZONTAL_DISPLAY] + 1, max(shown // height, 1), 2 * registers[vga.OFFSET]

    def _cursor(self, at: int, shape: tuple[int, int, int]) -> tuple[int, int] | None:
        """Where the cursor is seen that is ``at`` so many cells from the first one."""
        columns, rows, pitch = shape
        registers = self.vga.crtc.registers
        start, end = registers[vga.CURSOR_START], registers[vga.CURSOR_END] & LINE
        height = registers[vga.MAXIMUM_SCAN_LINE] & LINE
        if start & CURSOR_OFF or start & LINE > min(end, height):
            return None
        row, column = divmod(at, pitch or CELLS)
        return (row, column) if row < rows and column < columns else None


def text(row: bytes) -> str:
    """The characters of a line's cells."""
    return "".join([GLYPHS[character] for character in row[::2]])


def _row(memory: bytes, start: int, columns: int) -> bytes:
    """Cells from ``start`` on; behind the last one of the memory follows the first."""
    row = memory[2 * start : 2 * (start + columns)]
    return row + memory[: 2 * columns - len(row)]

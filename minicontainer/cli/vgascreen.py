"""The screen of a machine (``kvm-boot --screen``): drawn on the terminal while the machine runs, left as plain text.

Theory of operation. A thread looks at the screen FRAMES times a second, and sends the terminal what has changed, by the
control sequences of ECMA-48 and xterm (invisible-island.net/xterm/ctlseqs), in the terminal's alternate buffer. It
writes through a file description of its own, which does not block: a terminal that is stopped (Ctrl-S) holds up neither
the machine nor its end. A terminal that is smaller than the screen shows what fits, and the line of the cursor.
"""

from __future__ import annotations

import os
import sys
import time
from select import POLLOUT, poll

from minicontainer.cli.outputs import note
from minicontainer.kvm.boot import pc
from minicontainer.kvm.screen import BLANK, GLYPHS, Frame
from minicontainer.kvm.threads import block_signals, start
from minicontainer.light import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event, Thread

    from minicontainer.kvm.screen import Screen
else:
    from minicontainer.light import Event, Thread

FRAMES = 25
PATIENCE = 2.0  # seconds in which a terminal must take what restores it
NOTED = 4.0  # seconds for which a note is shown
CHUNK = 4096
REVERSE = 0x70  # attribute of notes: black on grey
USUAL_SIZE = 80, 24  # of a terminal that does not know its own
# The alternate buffer, without wrapping at the last column; and everything as it was.
BEGIN, END = "\x1b[?1049h\x1b[?7l", "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
# Colours of a VGA have blue as their lowest bit and red as the third one; in ECMA-48 it is the other way round.
ECMA = 0, 4, 2, 6, 1, 5, 3, 7
CLEAR, HIDE_CURSOR, SHOW_CURSOR = "\x1b[0m\x1b[2J", "\x1b[?25l", "\x1b[?25h"


class Display:
    """``with Display(machine.screen, draws=...): machine.run()``. ``draws``: on the terminal that stdout is, too."""

    def __init__(self, screen: Screen, *, draws: bool) -> None:
        self.draws = draws
        self._screen = screen
        self._over = Event()
        self._thread = Thread(target=self._main, daemon=True)
        self._fd = -1
        self._has_begun = False
        self._shown: Frame | None = None  # what the terminal shows; None: unknown
        self._is_stale = False
        self._size = USUAL_SIZE
        self._was_hidden = False
        self._note: tuple[list[str], float] = [], 0.0  # lines, and until when they are shown

    def __enter__(self) -> Display:
        if self.draws:
            self._fd = _terminal()
            try:
                start(self._thread)
            except BaseException:  # a signal that ends this process, too
                self._end()
                raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.draws:
            self._end()
        try:
            self._print()
        except OSError:
            if error is None:
                raise

    def note(self, text: str) -> None:
        """Shows lines below the screen, or over its last ones, for a while."""
        self._note = text.split("\n"), time.monotonic() + NOTED

    def redraw(self) -> None:
        """Draws all of it, since something else has written to the terminal."""
        self._is_stale = True

    # ---- the thread

    def _main(self) -> None:
        block_signals()
        try:
            self._has_begun = True
            self._send(BEGIN)
            self._draw()
            while not self._over.wait(1 / FRAMES):
                self._draw()
            self._draw()
        except OSError:
            pass  # the terminal is gone

    def _draw(self) -> None:
        frame = self._screen.frame()
        if frame.hidden and not self._was_hidden and not self._over.is_set():
            self._was_hidden = True  # a kernel that sets the palette may switch the screen off for a moment
            return
        self._was_hidden = bool(frame.hidden)
        size = _size(self._fd)
        lines, until = self._note
        view = noted(window(frame, size), lines if time.monotonic() < until else [], size)
        if self._is_stale or size != self._size:
            self._shown, self._size, self._is_stale = None, size, False
        self._send(render(view, self._shown))
        self._shown = view

    def _send(self, text: str, until: float = 0.0) -> None:
        """Writes to the terminal, unless that has not taken all of it at ``until`` (monotonic time; 0: at the end of
        the machine)."""
        data = text.encode(sys.stdout.encoding, "replace")
        poller = poll()
        poller.register(self._fd, POLLOUT)
        while data:
            try:
                if poller.poll(1000 // FRAMES):
                    data = data[os.write(self._fd, data[:CHUNK]) :]
                    continue
            except BlockingIOError:
                pass  # less room than for a byte
            if time.monotonic() > until if until else self._over.is_set():
                return

    # ---- the end

    def _end(self) -> None:
        try:
            self._over.set()
            self._thread.join(PATIENCE)
        finally:
            try:
                if self._has_begun:
                    self._send(END, time.monotonic() + PATIENCE)
            except OSError:
                pass  # the terminal is gone
            if self._fd != 1:
                os.close(self._fd)

    def _print(self) -> None:
        """Print the screen, without blank lines at its end; or say why there is none."""
        hidden, text = self._screen.hidden, "\n".join(self._screen.text()).rstrip("\n")
        if hidden:
            note(f"screen: {hidden}")
        if text:
            sys.stdout.flush()
            sys.stdout.buffer.write(f"{text}\n".encode(sys.stdout.encoding, "replace"))
            sys.stdout.flush()


def is_terminal() -> bool:
    """Whether stdout is a terminal on which a screen can be drawn."""
    return os.isatty(1) and os.environ.get("TERM") != "dumb"


def _terminal() -> int:
    """A descriptor of the terminal that does not block."""
    try:
        return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return 1  # another user's terminal: written in blocking mode


def _size(fd: int) -> tuple[int, int]:
    """Columns and lines of the terminal."""
    columns, lines = os.get_terminal_size(fd)
    return columns or USUAL_SIZE[0], lines or USUAL_SIZE[1]


# ---- from cells to bytes for a terminal


def window(frame: Frame, size: tuple[int, int]) -> Frame:
    """The part of a frame that a terminal of ``size`` (columns, lines) shows: from the first line on, or further down,
    with the line of the cursor as the last one."""
    columns, lines = size
    if frame.hidden:
        rows = [cells(frame.hidden[at : at + columns]) for at in range(0, len(frame.hidden), columns)]
        return Frame(rows[:lines], None, frame.blinks, "")
    first = 0 if frame.cursor is None else max(0, frame.cursor[0] - lines + 1)
    rows = [row[: 2 * columns] for row in frame.rows[first : first + lines]]
    cursor = None
    if frame.cursor is not None and frame.cursor[1] < columns:
        cursor = frame.cursor[0] - first, frame.cursor[1]
    return Frame(rows, cursor, frame.blinks, "")


def noted(view: Frame, lines: list[str], size: tuple[int, int]) -> Frame:
    """The view with lines below it, or over its last ones if the terminal has no place for them."""
    if not lines:
        return view
    columns, height = size
    lines, width = lines[:height], min(columns, pc.COLUMNS)
    rows = view.rows[: height - len(lines)]
    return view._replace(rows=rows + [cells(line[:width].ljust(width), REVERSE) for line in lines])


def cells(text: str, attribute: int = BLANK[1]) -> bytes:
    """The cells of a text in ASCII."""
    return b"".join([bytes([character, attribute]) for character in text.encode("ascii", "replace")])


def render(view: Frame, shown: Frame | None) -> str:
    """What makes a terminal that shows one view show another. None: whatever it shows; then all is drawn."""
    if view == shown:
        return ""
    before: list[bytes] = []
    parts = [HIDE_CURSOR]
    if shown is not None and shown.blinks == view.blinks and [*map(len, shown.rows)] == [*map(len, view.rows)]:
        before = shown.rows
    else:
        parts.append(CLEAR)
    for number, row in enumerate(view.rows):
        if not before or before[number] != row:
            parts.append(f"\x1b[{number + 1};1H{line(row, view.blinks)}")
    if view.cursor is not None:
        parts.append(f"\x1b[{view.cursor[0] + 1};{view.cursor[1] + 1}H{SHOW_CURSOR}")
    return "".join(parts)


def line(row: bytes, blinks: bool) -> str:
    """A line's cells as text, with a control sequence before each change of attribute."""
    parts, last = [], -1
    for at in range(0, len(row), 2):
        attribute = row[at + 1]
        if attribute != last:
            parts.append(rendition(attribute, blinks))
            last = attribute
        parts.append(GLYPHS[row[at]])
    return "".join(parts)


@lru_cache(maxsize=None)
def rendition(attribute: int, blinks: bool) -> str:
    """SELECT GRAPHIC RENDITION (ECMA-48, 8.3.117) of an attribute; bright colours are those of aixterm."""
    foreground, background = attribute & 0x0F, attribute >> 4
    blink = ""
    if blinks and background & 8:
        background, blink = background & 7, ";5"
    in_front = (90 if foreground & 8 else 30) + ECMA[foreground & 7]
    behind = (100 if background & 8 else 40) + ECMA[background & 7]
    return f"\x1b[0{blink};{in_front};{behind}m"

"""A full screen of all running containers, refreshed and sorted; keys stop, kill or enter one (``stats``, ``top``)."""

from __future__ import annotations

import curses
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from minicontainer.cli.sampling import HEAD, PAUSE, Sampler, cells
from minicontainer.cli.tables import table
from minicontainer.errors import Error, UnsupportedError

HELP = "arrows select; sort c cpu m mem p pids i io n name; s stop k kill e shell q end"
KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "c": lambda row: -(row["CPUPerc"] or 0),
    "m": lambda row: -(row["MemUsage"] or 0),
    "p": lambda row: -row["PIDs"],
    "i": lambda row: -((row["BlockRead"] or 0) + (row["BlockWrite"] or 0)),
    "n": lambda row: (row["Name"] is None, row["Name"] or "", row["ID"]),
}
SHELL = "/bin/sh"


def show(names: Sequence[str]) -> int:
    """Show the screen until q is pressed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UnsupportedError("top", None, "stdin and stdout are not a terminal", "stats --no-stream")
    try:
        curses.wrapper(Screen(names).run)
    except curses.error as e:
        raise UnsupportedError("top", None, f"this terminal cannot be used: {e}", "stats --no-stream") from None
    except KeyboardInterrupt:
        pass
    return 0


class Screen:
    """The rows and the selected container (by id, so that sorting keeps the selection)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._sampler = Sampler(names)
        self._rows: list[dict[str, Any]] = []
        self._chosen = ""
        self._order = "c"
        self._message = ""

    def run(self, window: Any) -> None:
        """The loop, in a curses window."""
        curses.curs_set(0)
        curses.use_default_colors()
        self._sampler.sample()
        key = -1
        while key != ord("q"):
            if key == -1:
                self._rows = self._sampler.sample()
            self._rows.sort(key=KEYS[self._order])
            self._draw(window)
            window.timeout(int(PAUSE * 1000))
            key = window.getch()
            self._handle_key(window, key)

    @property
    def _index(self) -> int:
        return next((i for i, row in enumerate(self._rows) if row["ID"] == self._chosen), 0)

    def _draw(self, window: Any) -> None:
        height, width = window.getmaxyx()
        lines = table(HEAD, [cells(row) for row in self._rows]).split("\n")
        index = self._index
        first = max(0, index - (height - 4))
        window.erase()
        _put(window, 0, f"{len(self._rows)} running, sorted by {self._order}", width, curses.A_BOLD)
        _put(window, 1, lines[0], width, curses.A_REVERSE)
        for y, line in enumerate(lines[1 + first : 1 + first + max(0, height - 3)]):
            chosen = curses.A_STANDOUT if first + y == index else curses.A_NORMAL
            _put(window, 2 + y, line, width, chosen)
        _put(window, height - 1, self._message or HELP, width, curses.A_DIM)
        self._message = ""
        window.refresh()

    def _handle_key(self, window: Any, key: int) -> None:
        if key in (curses.KEY_UP, curses.KEY_DOWN) and self._rows:
            step = 1 if key == curses.KEY_DOWN else -1
            self._chosen = self._rows[min(max(self._index + step, 0), len(self._rows) - 1)]["ID"]
        elif key >= 0 and chr(key) in KEYS:
            self._order = chr(key)
        elif key in (ord("s"), ord("k"), ord("e")) and self._rows:
            self._act(window, chr(key), self._rows[self._index]["ID"])

    def _act(self, window: Any, what: str, identifier: str) -> None:
        from minicontainer.detached.container import Container

        container = Container(identifier)
        try:
            if what == "e":
                _enter(window, container)
            else:
                self._draw(window)
                container.stop() if what == "s" else container.kill(signal.SIGKILL)
                self._message = f"{identifier[:12]} was {'stopped' if what == 's' else 'killed'}"
        except (Error, OSError) as e:
            self._message = str(e)


def _put(window: Any, y: int, text: str, width: int, attribute: int) -> None:
    try:
        window.addnstr(y, 0, text.ljust(width), max(0, width - 1), attribute)
    except curses.error:
        pass  # the window has become smaller


def _enter(window: Any, container: Any) -> None:
    """Run a shell in the container, outside curses."""
    from minicontainer.cli.foreground import foreground
    from minicontainer.spec import Spec

    curses.endwin()
    try:
        spec = Spec([SHELL], rootfs="/", tty=True)
        foreground(spec, start=lambda _: container.exec([SHELL], tty=True))
    finally:
        window.refresh()

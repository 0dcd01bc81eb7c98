"""Tables that fit the terminal; durations and sizes in readable units."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

import click

GAP = "   "
LEAST = 6  # the minimum width of a shortened column
UNITS = ((31536000, "year"), (2592000, "month"), (604800, "week"), (86400, "day"), (3600, "hour"), (60, "minute"))
COLORS = {"running": "green", "paused": "yellow", "restarting": "yellow", "dead": "red", "corrupt": "red"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]], cut: Sequence[str] = ()) -> str:
    """Aligned columns. On a narrow terminal the columns ``cut`` are shortened, the widest first."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    if sys.stdout.isatty():
        _narrow(widths, [head.index(name) for name in cut], shutil.get_terminal_size().columns)
    lines = [GAP.join(_cell(text, width) for text, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def _narrow(widths: list[int], cut: list[int], room: int) -> None:
    while sum(widths) + len(GAP) * (len(widths) - 1) > room:
        widest = max(cut, key=widths.__getitem__, default=-1)
        if widest < 0 or widths[widest] <= LEAST:
            return
        widths[widest] -= 1


def _cell(text: str, width: int) -> str:
    return shortened(text, width).ljust(width)


def shortened(text: str, most: int, *, keep_end: bool = False) -> str:
    """``text`` cut to ``most`` characters: its beginning, or its end (of a path)."""
    if len(text) <= most:
        return text
    return f"…{text[1 - most :]}" if keep_end else f"{text[: most - 1]}…"


def colored(text: str, status: str) -> str:
    """``text`` in the colour of ``status``, if stdout is a terminal."""
    return click.style(text, fg=COLORS[status]) if status in COLORS and sys.stdout.isatty() else text


def printable(text: str) -> str:
    """Text with control characters escaped, safe for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def ago(when: float | None, now: float | None = None) -> str:
    """``3 minutes ago``, from seconds since 1970."""
    return "" if when is None else f"{duration((time.time() if now is None else now) - when)} ago"


def duration(seconds: float) -> str:
    """``3 minutes``: in the largest unit with a count of at least two."""
    for size, name in UNITS:
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {name}s"
    count = int(max(0, seconds))
    return "less than a second" if count < 1 else f"{count} second{'s' * (count != 1)}"


def bytes_text(number: float | None) -> str:
    """``1.2 MiB``; ``-`` if unknown."""
    if number is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError

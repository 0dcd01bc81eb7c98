"""What a container wrote, as its monitor has it in files (csrc/monitor/log.c): read, and followed.

    for entry in c.logs(tail=10, follow=True):
        entry.time, entry.stream, entry.data

Theory of operation. Files only grow, and are renamed when they are full (`log` to `log.1` ...): a reader holds the one
that it is at, and finds the next by the inode of its own. Nobody waits for a reader: one that is slower than the
rotation goes on with the oldest file that is there.
"""

from __future__ import annotations

import calendar
import os
import re
import select
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from minicontainer import runtime
from minicontainer.detached.records import CorruptError
from minicontainer.linux.inotify import inotify_add_watch, inotify_init1

if TYPE_CHECKING:
    from fractions import Fraction

ENTRY = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z (stdout|stderr|lost) ([FP]) ([^\n]*)\n")
CHUNK = 1 << 16
LONGEST = 10**9  # ms: what poll(2) can be asked to wait at once


class Entry(NamedTuple):
    """A part of the output. ``data`` ends with a newline where the program wrote one. Of stream ``lost`` it says how
    much could not be written to the log, and why."""

    time_ns: int  # since 1970
    stream: str  # stdout, stderr, lost
    data: bytes

    @property
    def time(self) -> float:
        """Seconds since 1970."""
        return self.time_ns / 1e9


def parse(data: bytes) -> Iterator[Entry]:
    """The entries of whole lines; what is no entry is left out."""
    return (entry for _, entry in _placed(data))


def _placed(data: bytes) -> Iterator[tuple[int, Entry]]:
    """Entries with where they begin."""
    for match in ENTRY.finditer(data):
        text = match[5] + (b"\n" if match[4] == b"F" else b"")
        yield match.start(), Entry(_seconds(match[1]) * 10**9 + int(match[2]), match[3].decode(), text)


@lru_cache(maxsize=4)
def _seconds(text: bytes) -> int:
    return calendar.timegm(time.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S"))


class Place(NamedTuple):
    """Of an entry: in which file, however that is called by now, and where it begins."""

    inode: int
    offset: int


class Begin(NamedTuple):
    """Of a line: where, and of which streams earlier lines go on after it."""

    place: Place
    within: frozenset[str]


class Log:
    """A container's log, from the oldest file that is kept. ``fileno`` is readable when there may be more."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._inotify = inotify_init1()
        inotify_add_watch(self._inotify, directory, "IN_MODIFY|IN_CREATE")
        self._file = -1
        self._rest = b""

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what it holds."""
        fd, self._inotify = self._inotify, -1
        if fd >= 0:
            os.close(fd)
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._rest = -1, b""

    def fileno(self) -> int:
        """For poll(2)."""
        return self._inotify

    def skip(self) -> None:
        """Goes to the end."""
        while self._next():
            pass
        if self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)

    def again(self, begin: Begin) -> Iterator[Entry]:
        """All from the beginning of a line on, but for the lines that go on from before; from the oldest file on, where
        its own is gone."""
        self._close()
        while self._next():
            if os.fstat(self._file).st_ino == begin.place.inode:
                os.lseek(self._file, begin.place.offset, os.SEEK_SET)
                return without(self.read(), begin.within)
        self._close()
        return self.read()

    def read(self) -> Iterator[Entry]:
        """All that is there now and was not read before."""
        return (entry for _, entry in self.placed())

    def placed(self) -> Iterator[tuple[Place, Entry]]:
        """``read``, with where each begins."""
        self._drain()
        while True:
            while self._file >= 0 and (data := self._more()):
                lines, newline, rest = (self._rest + data).rpartition(b"\n")
                begin = os.lseek(self._file, 0, os.SEEK_CUR) - len(self._rest) - len(data)
                inode, self._rest = os.fstat(self._file).st_ino, rest
                for at, entry in _placed(lines + newline):
                    yield Place(inode, begin + at), entry
                if len(self._rest) > 2 * CHUNK:  # no line of a monitor's: it writes no more than it reads at once
                    self._rest = b""
            if not self._next():
                return

    def _more(self) -> bytes:
        return os.read(self._file, CHUNK) if self._rest else runtime.read_on(self._file, CHUNK)

    def _drain(self) -> None:
        try:
            while os.read(self._inotify, CHUNK):
                pass
        except BlockingIOError:
            pass

    def _next(self) -> bool:
        """Goes to the file after this one; False where this is the last."""
        files = self._files()
        own = os.fstat(self._file).st_ino if self._file >= 0 else 0
        numbers = [number for number, inode in files if inode == own]
        behind = [number for number, _ in files if not numbers or number < numbers[0]]
        if not behind:
            return False
        try:
            name = f"log.{max(behind)}" if max(behind) else "log"
            opened = runtime.opened(f"{self._directory}/{name}")
        except FileNotFoundError:
            return True  # it was renamed meanwhile: look again
        except ValueError as e:
            raise CorruptError(f"{name}: {e}") from None
        self._close()
        self._file = opened
        return True

    def _files(self) -> list[tuple[int, int]]:
        """(number, inode) of each file."""
        found = []
        try:
            for item in os.scandir(self._directory):
                if match := re.fullmatch(r"log(?:\.(\d+))?", item.name):
                    found.append((int(match[1] or 0), item.inode()))
        except FileNotFoundError:
            pass  # the container was removed
        return found


def last(entries: Iterable[tuple[Place, Entry]], count: int) -> Begin | None:
    """Where the last ``count`` lines begin, a line may come in parts; None where there are none."""
    begins: deque[Begin] = deque(maxlen=count)
    within: set[str] = set()
    for place, entry in entries:
        if entry.stream not in within:
            begins.append(Begin(place, frozenset(within)))
        (within.discard if entry.data.endswith(b"\n") else within.add)(entry.stream)
    return begins[0] if begins else None


def without(entries: Iterable[Entry], streams: Iterable[str]) -> Iterator[Entry]:
    """The entries but for what is left of a line of each of these streams."""
    within = set(streams)
    for entry in entries:
        if entry.stream not in within:
            yield entry
        elif entry.data.endswith(b"\n"):
            within.remove(entry.stream)


def entries(
    directory: str,
    ended: int | None,
    *,
    follow: bool = False,
    since: float | Fraction | None = None,
    until: float | Fraction | None = None,
    tail: int | None = None,
) -> Iterator[Entry]:
    """The entries from ``since`` on, to ``until`` (seconds since 1970), of the last ``tail`` lines. With ``follow``
    also those that come, until then, or until the descriptor ``ended`` is readable (None: at once)."""
    first, end = (None if when is None else round(when * 10**9) for when in (since, until))

    def fits(entry: Entry) -> bool:
        return (first is None or entry.time_ns >= first) and (end is None or entry.time_ns <= end)

    with Log(directory) as log:
        found = log.read()
        if tail is not None:
            begin = last(((place, entry) for place, entry in log.placed() if fits(entry)), tail)
            found = log.again(begin) if begin else iter(())
        yield from filter(fits, found)
        while follow and ended is not None:
            left = None if end is None else (end - time.time_ns()) / 1e6
            if left is not None and left <= 0:
                return
            poll = select.poll()
            poll.register(log, select.POLLIN)
            poll.register(ended, select.POLLIN)
            ready = dict(poll.poll(left if left is None else min(left, LONGEST)))
            yield from filter(fits, log.read())
            if ended in ready:
                return

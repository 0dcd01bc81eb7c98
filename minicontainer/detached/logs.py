"""``logs``: reads and follows the log files that the monitor writes (csrc/monitor/log.c).

    for entry in c.logs(tail=10, follow=True):
        entry.time, entry.stream, entry.data

Theory of operation. A log file only grows, and is renamed when it is full (`log` to `log.1` ...). A reader has one file
open, and finds the next file by the inode of the open one. The monitor does not wait for readers: a reader that is
slower than the rotation continues with the oldest file that exists."""

from __future__ import annotations

import calendar
import os
import re
import select
import time
from collections import deque

from minicontainer import runtime
from minicontainer.detached.records import CorruptError
from minicontainer.linux.inotify import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction
    from functools import lru_cache
    from typing import NamedTuple
else:
    from minicontainer.light import lru_cache
    from minicontainer.records import NamedTuple

ENTRY = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z (stdout|stderr|lost) ([FP]) ([^\n]*)\n")
CHUNK = 1 << 16
POLL_MAX = 10**9  # ms: below the maximum of poll(2)


class Entry(NamedTuple):
    """A part of the output. ``data`` ends with a newline if the program wrote one. An entry of the stream ``lost`` says
    how many bytes could not be written to the log, and why."""

    time_ns: int  # since 1970
    stream: str  # stdout, stderr, lost
    data: bytes

    @property
    def time(self) -> float:
        """Seconds since 1970."""
        return self.time_ns / 1e9


def parse(data: bytes) -> Iterator[Entry]:
    """The entries of complete lines; invalid lines are left out."""
    return (entry for _, entry in _positions(data))


def _positions(data: bytes) -> Iterator[tuple[int, Entry]]:
    """Entries with their offsets."""
    for match in ENTRY.finditer(data):
        text = match[5] + (b"\n" if match[4] == b"F" else b"")
        yield match.start(), Entry(_seconds(match[1]) * 10**9 + int(match[2]), match[3].decode(), text)


@lru_cache(maxsize=4)
def _seconds(text: bytes) -> int:
    return calendar.timegm(time.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S"))


class Position(NamedTuple):
    """The position of an entry: the inode of its file, which may be renamed, and the offset."""

    inode: int
    offset: int


class LineStart(NamedTuple):
    """The start of a line, and the streams on which an earlier line continues after it."""

    position: Position
    continued: frozenset[str]


class Log:
    """A container's log, from the oldest retained file on. ``fileno`` is readable when there may be more output."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._inotify = watching(directory, "IN_MODIFY|IN_CREATE")
        self._file = -1
        self._partial = b""

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the descriptors."""
        fd, self._inotify = self._inotify, -1
        if fd >= 0:
            os.close(fd)
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._partial = -1, b""

    def fileno(self) -> int:
        """The descriptor for poll(2)."""
        return self._inotify

    def skip(self) -> None:
        """Seeks to the end of the log."""
        while self._next():
            pass
        if self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)

    def replay(self, line: LineStart) -> Iterator[Entry]:
        """The entries from the start of a line on, without the rest of earlier lines; from the oldest file on, if the
        file of that line is gone."""
        self._close()
        while self._next():
            if os.fstat(self._file).st_ino == line.position.inode:
                os.lseek(self._file, line.position.offset, os.SEEK_SET)
                return drop_continued(self.read(), line.continued)
        self._close()
        return self.read()

    def read(self) -> Iterator[Entry]:
        """The entries since the last call."""
        return (entry for _, entry in self.positions())

    def positions(self) -> Iterator[tuple[Position, Entry]]:
        """``read``, with the position of each entry."""
        self._drain()
        while True:
            while self._file >= 0 and (data := self._more()):
                lines, newline, rest = (self._partial + data).rpartition(b"\n")
                chunk_start = os.lseek(self._file, 0, os.SEEK_CUR) - len(self._partial) - len(data)
                inode, self._partial = os.fstat(self._file).st_ino, rest
                for at, entry in _positions(lines + newline):
                    yield Position(inode, chunk_start + at), entry
                if len(self._partial) > 2 * CHUNK:  # no valid line: a monitor writes at most one read(2) to a line
                    self._partial = b""
            if not self._next():
                return

    def _more(self) -> bytes:
        return os.read(self._file, CHUNK) if self._partial else runtime.read_on(self._file, CHUNK)

    def _drain(self) -> None:
        try:
            while os.read(self._inotify, CHUNK):
                pass
        except BlockingIOError:
            pass

    def _next(self) -> bool:
        """Opens the next file; False if this is the last one."""
        files = self._files()
        own = os.fstat(self._file).st_ino if self._file >= 0 else 0
        numbers = [number for number, inode in files if inode == own]
        newer = [number for number, _ in files if not numbers or number < numbers[0]]
        if not newer:
            return False
        try:
            name = f"log.{max(newer)}" if max(newer) else "log"
            opened = runtime.open_regular(f"{self._directory}/{name}")
        except FileNotFoundError:
            return True  # it was renamed meanwhile: list the files again
        except ValueError as e:
            raise CorruptError(f"{name}: {e}") from None
        self._close()
        self._file = opened
        return True

    def _files(self) -> list[tuple[int, int]]:
        """(number, inode) of each file."""
        files = []
        try:
            for item in os.scandir(self._directory):
                if match := re.fullmatch(r"log(?:\.(\d+))?", item.name):
                    files.append((int(match[1] or 0), item.inode()))
        except FileNotFoundError:
            pass  # the container was removed
        return files


def last(entries: Iterable[tuple[Position, Entry]], count: int) -> LineStart | None:
    """The start of the last ``count`` lines (a line may consist of several entries); None without entries."""
    starts: deque[LineStart] = deque(maxlen=count)
    continued: set[str] = set()
    for position, entry in entries:
        if entry.stream not in continued:
            starts.append(LineStart(position, frozenset(continued)))
        (continued.discard if entry.data.endswith(b"\n") else continued.add)(entry.stream)
    return starts[0] if starts else None


def drop_continued(entries: Iterable[Entry], streams: Iterable[str]) -> Iterator[Entry]:
    """The entries without the rest of one line of each of these streams."""
    continued = set(streams)
    for entry in entries:
        if entry.stream not in continued:
            yield entry
        elif entry.data.endswith(b"\n"):
            continued.remove(entry.stream)


def entries(
    directory: str,
    ended: int | None,
    *,
    follow: bool = False,
    since: float | Fraction | None = None,
    until: float | Fraction | None = None,
    tail: int | None = None,
) -> Iterator[Entry]:
    """The entries from ``since`` to ``until`` (seconds since 1970), of the last ``tail`` lines. With ``follow`` also
    later ones, to ``until``, or until the descriptor ``ended`` is readable (None: the container has ended)."""
    first, end = (None if when is None else round(when * 10**9) for when in (since, until))

    def fits(entry: Entry) -> bool:
        return (first is None or entry.time_ns >= first) and (end is None or entry.time_ns <= end)

    with Log(directory) as log:
        selected = log.read()
        if tail is not None:
            line = last(((position, entry) for position, entry in log.positions() if fits(entry)), tail)
            selected = log.replay(line) if line else iter(())
        yield from filter(fits, selected)
        while follow and ended is not None:
            left = None if end is None else (end - time.time_ns()) / 1e6
            if left is not None and left <= 0:
                return
            poll = select.poll()
            poll.register(log, select.POLLIN)
            poll.register(ended, select.POLLIN)
            ready = dict(poll.poll(left if left is None else min(left, POLL_MAX)))
            yield from filter(fits, log.read())
            if ended in ready:
                return

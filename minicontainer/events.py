"""Events of containers, networks and volumes: lines of a file, appended by the process that acts.

    for event in events.events(since=time.time() - 60, follow=False):
        event.time, event.kind, event.action, event.id, event.attributes

``container``: create, start, kill, stop, die, oom, restart, pause, unpause, rename, update, destroy; ``network`` and
``volume``: create, destroy. There are no events of ``exec``.

Theory of operation. There is no daemon. The monitor of a container emits its start, end and removal
(csrc/monitor/events.c); commands emit the other events. Each event is one write(2) to the end of ``events`` in the
state directory. Lines have docker's format:

    2026-11-23T16:51:08.123456789Z container die 0123...cdef (exitCode=137, name=box)

Readers are woken by inotify(7). At LIMIT bytes ``events`` is renamed to ``events.1``, which replaces an older file.
"""

from __future__ import annotations

import calendar
import fcntl
import os
import re
import select
import time

from minicontainer import runtime
from minicontainer.linux.inotify import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import suppress
    from fractions import Fraction
    from typing import NamedTuple
else:
    from minicontainer.light import suppress
    from minicontainer.records import NamedTuple

LIMIT = 1 << 20  # bytes of one file
CHUNK = 1 << 16
POLL_MAX = 10**9  # ms: below the maximum of poll(2)
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z ([a-z]+) ([a-z_]+) ([\w.-]+) \((.*)\)\n", re.ASCII)


class Event(NamedTuple):
    """One event. ``id``: 64 digits of a container, or the name of a network or a volume."""

    time_ns: int  # since 1970
    kind: str  # container, network, volume
    action: str
    id: str
    attributes: dict[str, str]  # name; exitCode of die, signal of kill, oldName of rename

    @property
    def time(self) -> float:
        """Seconds since 1970."""
        return self.time_ns / 1e9


def path() -> str:
    """The path of the file."""
    return f"{runtime.directory()}/events"


def emit(kind: str, action: str, identifier: str, **attributes: object) -> None:
    """Appends an event. If it cannot be written, it is lost: the action is not undone."""
    now = time.time_ns()
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    pairs = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()) if value not in ("", None))
    line = f"{when}.{now % 10**9:09d}Z {kind} {action} {identifier} ({pairs})\n"
    with suppress(OSError, ValueError):
        fd = runtime.open_regular(path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, line.encode("utf-8", "replace"))
            if os.fstat(fd).st_size > LIMIT:
                _rotate(fd)
        finally:
            os.close(fd)


def _rotate(fd: int) -> None:
    """Renames the file, unless another process has renamed it already."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.path.samestat(os.fstat(fd), os.stat(path(), follow_symlinks=False)):
        os.rename(path(), f"{path()}.1")


def parse(line: str) -> Event | None:
    """Parses a line; None if it is invalid."""
    match = LINE.fullmatch(line)
    if match is None:
        return None
    seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    pairs = (part.partition("=") for part in match[6].split(", ") if part)
    return Event(seconds * 10**9 + int(match[2]), match[3], match[4], match[5], {key: value for key, _, value in pairs})


def events(
    *, since: float | Fraction | None = None, until: float | Fraction | None = None, follow: bool = True
) -> Iterator[Event]:
    """The events from ``since`` to ``until`` (seconds since 1970). With ``follow`` also later ones, to ``until`` or for
    ever; ``since`` None: from now on; without ``follow``: all retained events."""
    first, end = (None if when is None else round(when * 10**9) for when in (since, until))
    with _Follower() as follower:
        if first is None and follow:
            follower.skip()
        while True:
            for event in follower.read():
                if (first is None or event.time_ns >= first) and (end is None or event.time_ns <= end):
                    yield event
            remaining = None if end is None else (end - time.time_ns()) / 1e6
            if not follow or (remaining is not None and remaining <= 0):
                return
            follower.wait(remaining)


class _Follower:
    """Reads the files, the older one first."""

    def __init__(self) -> None:
        runtime.make_directory(runtime.directory())
        self._inotify = watching(runtime.directory(), "IN_MODIFY|IN_CREATE")
        self._file = -1
        self._partial = b""

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._inotify)
        if self._file >= 0:
            os.close(self._file)

    def wait(self, milliseconds: float | None) -> None:
        """Waits until there may be more events, or ``milliseconds`` have passed."""
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.poll(None if milliseconds is None else min(milliseconds, POLL_MAX))

    def skip(self) -> None:
        """Reads to the end."""
        for _ in self.read():
            pass

    def read(self) -> Iterator[Event]:
        """The events since the last call."""
        with suppress(BlockingIOError):
            while os.read(self._inotify, 1 << 16):
                pass
        while True:
            while self._file >= 0 and (data := runtime.read_on(self._file, CHUNK)):
                lines, newline, self._partial = (self._partial + data).rpartition(b"\n")
                self._partial = self._partial[-CHUNK:]  # no valid line is longer
                for line in (lines + newline).decode("utf-8", "replace").splitlines(keepends=True):
                    if (event := parse(line)) is not None:
                        yield event
            if not self._next():
                return

    def _next(self) -> bool:
        """Opens the next file; False if this is the last one."""
        for name in (path(),) if self._file >= 0 else (f"{path()}.1", path()):
            try:
                fd = runtime.open_regular(name)
            except (FileNotFoundError, ValueError):
                continue
            if self._file >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self._file)):
                os.close(fd)
                return False
            if self._file >= 0:
                os.close(self._file)
            self._file, self._partial = fd, b""
            return True
        return False

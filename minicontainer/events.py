"""What has happened to containers, networks and volumes: lines of a file, which who does something writes.

    for event in events.events(since=time.time() - 60, follow=False):
        event.time, event.kind, event.action, event.id, event.attributes

``container``: create, start, kill, stop, die, oom, restart, pause, unpause, rename, update, destroy; ``network`` and
``volume``: create, destroy. (What goes on inside, exec too, is not told.)

Theory of operation. There is no daemon: a container's monitor says what becomes of it (csrc/monitor/events.c), whoever
acts on it the rest, each by one write(2) to the end of ``events`` in the state directory. Lines are as docker prints
them:

    2026-11-23T16:51:08.123456789Z container die 0123...cdef (exitCode=137, name=box)

Who follows them is woken by inotify(7). At LIMIT bytes ``events`` becomes ``events.1``, in place of the one before.
"""

from __future__ import annotations

import calendar
import fcntl
import os
import re
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minicontainer import runtime
from minicontainer.linux.inotify import inotify_add_watch, inotify_init1

if TYPE_CHECKING:
    from fractions import Fraction

LIMIT = 1 << 20  # bytes of one file
CHUNK = 1 << 16
LONGEST = 10**9  # ms: what poll(2) can be asked to wait at once
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z ([a-z]+) ([a-z_]+) ([\w.-]+) \((.*)\)\n", re.ASCII)


class Event(NamedTuple):
    """One of them. ``id``: 64 digits of a container, the name of a network or a volume."""

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
    """Where they are."""
    return f"{runtime.directory()}/events"


def emit(kind: str, action: str, identifier: str, **attributes: object) -> None:
    """Writes one. Where it cannot be written it is lost: what has happened has happened."""
    now = time.time_ns()
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    shown = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()) if value not in ("", None))
    line = f"{when}.{now % 10**9:09d}Z {kind} {action} {identifier} ({shown})\n"
    with suppress(OSError, ValueError):
        fd = runtime.opened(path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, line.encode("utf-8", "replace"))
            if os.fstat(fd).st_size > LIMIT:
                _rotate(fd)
        finally:
            os.close(fd)


def _rotate(fd: int) -> None:
    """Once, whoever sees first that it is long."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.path.samestat(os.fstat(fd), os.stat(path(), follow_symlinks=False)):
        os.rename(path(), f"{path()}.1")


def parse(line: str) -> Event | None:
    """The event of a line; None where it is none."""
    match = LINE.fullmatch(line)
    if match is None:
        return None
    seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    pairs = (part.partition("=") for part in match[6].split(", ") if part)
    return Event(seconds * 10**9 + int(match[2]), match[3], match[4], match[5], {key: value for key, _, value in pairs})


def events(
    *, since: float | Fraction | None = None, until: float | Fraction | None = None, follow: bool = True
) -> Iterator[Event]:
    """Those from ``since`` on (seconds since 1970; None: from now on, or all that are kept where nothing is followed),
    to ``until``; with ``follow`` those too that come, until then, or for ever."""
    first, end = (None if when is None else round(when * 10**9) for when in (since, until))
    with _Follower() as follower:
        if first is None and follow:
            follower.skip()
        while True:
            for event in follower.read():
                if (first is None or event.time_ns >= first) and (end is None or event.time_ns <= end):
                    yield event
            left = None if end is None else (end - time.time_ns()) / 1e6
            if not follow or (left is not None and left <= 0):
                return
            follower.wait(left)


class _Follower:
    """A reader of the files, from the older one on."""

    def __init__(self) -> None:
        runtime.make_directory(runtime.directory())
        self._inotify = inotify_init1()
        inotify_add_watch(self._inotify, runtime.directory(), "IN_MODIFY|IN_CREATE")
        self._file = -1
        self._rest = b""

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._inotify)
        if self._file >= 0:
            os.close(self._file)

    def wait(self, milliseconds: float | None) -> None:
        """Until there may be more."""
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.poll(None if milliseconds is None else min(milliseconds, LONGEST))

    def skip(self) -> None:
        """Goes to the end of what is there."""
        for _ in self.read():
            pass

    def read(self) -> Iterator[Event]:
        """All that is there and was not read before."""
        with suppress(BlockingIOError):
            while os.read(self._inotify, 1 << 16):
                pass
        while True:
            while self._file >= 0 and (data := runtime.read_on(self._file, CHUNK)):
                lines, newline, self._rest = (self._rest + data).rpartition(b"\n")
                self._rest = self._rest[-CHUNK:]  # no line is longer
                for line in (lines + newline).decode("utf-8", "replace").splitlines(keepends=True):
                    if (event := parse(line)) is not None:
                        yield event
            if not self._next():
                return

    def _next(self) -> bool:
        """Goes to the file after this one; False where this is the last."""
        for name in (path(),) if self._file >= 0 else (f"{path()}.1", path()):
            try:
                fd = runtime.opened(name)
            except (FileNotFoundError, ValueError):
                continue
            if self._file >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self._file)):
                os.close(fd)
                return False
            if self._file >= 0:
                os.close(self._file)
            self._file, self._rest = fd, b""
            return True
        return False

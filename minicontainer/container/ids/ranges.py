"""Ids for containers of root: ranges of 65,536 that no other container has, taken for as long as one runs.

Theory of operation. A range is taken by a lock on a file: of the bytes whose offsets are its user ids (fcntl(2),
F_OFD_SETLK), so that the kernel itself sees that no two overlap, and a range is free again when its owner dies. An
owner that was killed may leave its container behind; so a byte of the file says that a range was taken and not given
back, and then it is looked whether any process still has it. There is a file for each TOGETHER ids, since who closes a
descriptor of a file walks all locks of it (locks_remove_posix in the kernel's fs/locks.c); what lies across two has a
lock on both.

Ranges come from the entries of ``containers``, or of root, in /etc/subuid and /etc/subgid; where there are none, from
what systemd keeps for containers (524288 to 1879048191, https://systemd.io/UIDS-GIDS), except what anybody has in
/etc/subuid.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from minicontainer import runtime
from minicontainer.errors import EXHAUSTED, RangeRefusedError, UnsupportedError, told
from minicontainer.spec import OUTSIDE_MAX

WIDTH = 65536
MANY = 256  # ranges of which a process may keep one
DIRECTORY = "/run/minicontainer/id-ranges"
TOGETHER = 64 * WIDTH  # ids of which the locks are on one file
OWNERS = ("containers", "root", "0")
FALLBACK = range(0x80000, 0x70000000, WIDTH)
FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid

_next = 0  # where the search begins: after the range that was taken last
_idle: dict[str, Lease] = {}  # one at most, kept for the next container of this process (a dict's methods are atomic)


class Range(NamedTuple):
    """Ids outside: ``width`` user ids from ``uid`` on, and as many group ids from ``gid`` on."""

    uid: int
    gid: int
    width: int = WIDTH


def chosen(wish: str | None) -> Range | None:
    """The range of a wish ``UID:GID:COUNT``; None where it is another one."""
    return Range(*map(int, wish.split(":"))) if wish and wish[0].isdigit() else None


class Lease:
    """A range that is this container's until ``release()``: ``fds`` hold its locks."""

    __slots__ = ("fds", "ids", "pid")

    def __init__(self, fds: list[int], ids: Range) -> None:
        self.fds, self.ids, self.pid = fds, ids, os.getpid()

    @property
    def mark(self) -> int | None:
        """The byte of the first file that says that it was taken and not given back; None where it is shared."""
        return self.ids.uid // WIDTH

    def release(self) -> None:
        """Gives it back, when no process has it any more; or keeps it, for this process's next container, where there
        are many."""
        self.note(0)
        if self.pid != os.getpid() or pool().size < MANY or _idle.setdefault("kept", self) is not self:
            self.leave()

    def leave(self) -> None:
        """Leaves it to its container, which outlives its owner: it is taken while a process has it."""
        _close(self.fds)

    def note(self, taken: int) -> None:
        """Says in the file whether a container may have it."""
        if self.pid == os.getpid():  # else it is that of the process which we were forked from
            os.pwrite(self.fds[0], bytes([taken]), self.ids.uid // WIDTH)


class Shared(Lease):
    """A range that others may have too."""

    __slots__ = ()

    @property
    def mark(self) -> None:
        """There is none: nobody is given it by ``take``."""

    def release(self) -> None:
        """Gives it back."""
        self.leave()


def take() -> Lease:
    """A free range. UnsupportedError: there is none; RangeRefusedError: nothing can be locked here."""
    global _next  # noqa: PLW0603 - only a hint
    kept = _idle.pop("kept", None)
    if kept is not None and kept.pid == os.getpid():
        kept.note(1)
        return kept
    if kept is not None:
        kept.leave()
    ranges = pool()
    for index in range(_next + os.getpid(), _next + os.getpid() + ranges.size):
        ids = ranges.at(index % ranges.size)
        lease = None if ids is None else _take(ids)
        if lease is not None:
            _next = index + 1 - os.getpid()
            return lease
    raise UnsupportedError("userns", "auto", f"all {ranges.size} ranges of ids are taken", "more in /etc/subuid")


def _take(ids: Range) -> Lease | None:
    """That one, where it is free."""
    fds = _locked(ids, fcntl.F_WRLCK)
    if not fds:
        return None
    lease = Lease(fds, ids)
    if _is_left_behind(fds[0], ids):
        lease.leave()
        return None
    lease.note(1)
    return lease


def share(ids: Range) -> Lease:
    """A range that the caller has chosen: others may choose it too, but nobody is given it by ``take``, nor while a
    process has it that outlived the lock."""
    fds = _locked(ids, fcntl.F_RDLCK)
    try:
        if fds and _note_shared(ids):
            return Shared(fds, ids)
    except BaseException:
        _close(fds)
        raise
    _close(fds)
    wish = f"{ids.uid}:{ids.gid}:{ids.width}"
    raise UnsupportedError("userns", wish, "a running container was given some of these ids", "others, or auto")


def _note_shared(ids: Range) -> bool:
    """Says for each range that overlaps these ids that it is to be looked who has them, which stays so until that was
    given by ``take`` and given back. False where a container still has some that were given to it alone."""
    given = False
    for index in range(max(0, ids.uid - WIDTH + 1) // WIDTH, (ids.uid + ids.width - 1) // WIDTH + 1):
        fd = _open(index * WIDTH // TOGETHER)
        try:
            noted = os.pread(fd, 1, index)
            given |= noted == b"\1"
            if noted in (b"", b"\0"):
                os.pwrite(fd, b"\2", index)
        finally:
            os.close(fd)
    return not given or not _is_mapped(ids)


def _locked(ids: Range, kind: int) -> list[int]:
    """The files with the locks of these ids, locked; none where somebody else has one."""
    fds: list[int] = []
    try:
        for number in range(ids.uid // TOGETHER, (ids.uid + ids.width - 1) // TOGETHER + 1):
            fds.append(_open(number))
            if not _lock(fds[-1], ids, kind):
                break
        else:
            return fds
    except BaseException:
        _close(fds)
        raise
    _close(fds)
    return []


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _open(number: int) -> int:
    """The file of that number."""
    path = f"{DIRECTORY}/{number}"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            runtime.make_directory(DIRECTORY)
            return os.open(path, flags, 0o600)
    except OSError as e:
        if e.errno in EXHAUSTED:
            raise told(e, path) from None
        reason = f"{path}: {(e.strerror or str(e)).lower()}"
        raise RangeRefusedError("userns", "auto", reason, "--userns host") from None


def _lock(fd: int, ids: Range, kind: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, ids.uid, ids.width, 0))
    except OSError as e:
        if e.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _is_left_behind(fd: int, ids: Range) -> bool:
    """Whether its last owner did not give it back (1), or somebody chose ids of it (2), and a process still has it."""
    return os.pread(fd, 1, ids.uid // WIDTH) not in (b"", b"\0") and _is_mapped(ids)


def _is_mapped(ids: Range) -> bool:
    """Whether a process has some of these ids."""
    return any(start < ids.uid + ids.width and ids.uid < start + count for start, count in _mapped())


def _mapped() -> Iterator[tuple[int, int]]:
    """(start, count) of the ids that processes in user namespaces have outside them."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/uid_map", encoding="ascii") as f:
                rows = [line.split() for line in f]
        except OSError:
            continue  # it has ended
        yield from ((int(start), int(count)) for inside, start, count in rows if inside != start)


class Pool(NamedTuple):
    """Ranges one behind the other, ``size`` of them from these ids on; those that overlap ``given`` are somebody
    else's."""

    uid: int
    gid: int
    size: int
    given: tuple[tuple[int, int], ...] = ()

    def at(self, index: int) -> Range | None:
        """One of them; None where it may not be taken."""
        found = Range(self.uid + index * WIDTH, self.gid + index * WIDTH)
        return None if any(start < found.uid + WIDTH and found.uid < end for start, end in self.given) else found


@lru_cache(maxsize=1)
def pool() -> Pool:
    """What may be taken, as the files were when it was asked first."""
    uids, gids = entries("/etc/subuid"), entries("/etc/subgid")
    for owner in OWNERS:
        for start, count in ((start, count) for name, start, count in uids if name == owner):
            for first, many in ((first, many) for name, first, many in gids if name == owner):
                size = min(count, many, OUTSIDE_MAX + 1 - start, OUTSIDE_MAX + 1 - first) // WIDTH
                if size > 0:
                    return Pool(start, first, size)
    given = tuple((start, start + count) for _, start, count in [*uids, *gids])
    return Pool(FALLBACK[0], FALLBACK[0], len(FALLBACK), given)


def entries(path: str) -> list[tuple[str, int, int]]:
    """(name, start, count) of each line of /etc/subuid or /etc/subgid (subuid(5))."""
    found = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            for line in f:
                name, _, numbers = line.strip().partition(":")
                start, _, count = numbers.partition(":")
                if start.isdecimal() and count.isdecimal():
                    found.append((name, int(start), int(count)))
    except OSError:
        pass
    return found

"""Id ranges for containers of root: 65,536 ids that no other container has while the container runs.

Theory of operation. A range is allocated by a lock (fcntl(2), F_OFD_SETLK) on those bytes of a file whose offsets are
its user ids. So the kernel prevents overlaps, and frees the range when the last process that holds the lock ends. A
killed manager may leave processes of its container behind. So a byte of the file says that a range was allocated and
not released; such a range is allocated again only when no process has it mapped. Each file covers IDS_PER_FILE ids,
since closing a descriptor walks all locks of its file (locks_remove_posix in the kernel's fs/locks.c); a range across
two files has a lock on both.

Ranges come from the entries of ``containers``, or of root, in /etc/subuid and /etc/subgid; where there are none, from
the ids that systemd reserves for containers (524288 to 1879048191, https://systemd.io/UIDS-GIDS), except those that
any entry of /etc/subuid or /etc/subgid has.
"""

from __future__ import annotations

import atexit
import errno
import os

from minicontainer import runtime
from minicontainer.errors import EXHAUSTED, RangeRefusedError, UnsupportedError, as_step_error
from minicontainer.native import lib
from minicontainer.spec import OUTSIDE_MAX

TYPE_CHECKING = False
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from functools import lru_cache
    from typing import NamedTuple
else:
    from minicontainer.light import lru_cache
    from minicontainer.records import NamedTuple

WIDTH = 65536
CACHE_LEAST = 256  # a process caches a released range if the host has at least so many ranges
DIRECTORY = "/run/minicontainer/id-ranges"
IDS_PER_FILE = 64 * WIDTH  # ids whose locks are on one file
OWNERS = ("containers", "root", "0")
FALLBACK = range(0x80000, 0x70000000, WIDTH)

_forks = 0  # how many fork(2) lie between this process and the one that imported this module
_next = 0  # where the next search starts: after the range that was allocated last
_cache: dict[str, Lease] = {}  # at most one, for the next container of this process (a dict's methods are atomic)


def _count_fork() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Range(NamedTuple):
    """Ids outside the user namespace: ``width`` user ids from ``uid`` on, and as many group ids from ``gid`` on."""

    uid: int
    gid: int
    width: int = WIDTH


def parse_range(userns: str | None) -> Range | None:
    """The range of ``UID:GID:COUNT``, a value of Spec.userns; None for another value."""
    return Range(*map(int, userns.split(":"))) if userns and userns[0].isdigit() else None


class Lease:
    """A range that belongs to one container until ``release()``. ``fds`` hold its locks."""

    __slots__ = ("fds", "forks", "ids", "was_cached")

    def __init__(self, fds: list[int], ids: Range) -> None:
        self.fds, self.ids, self.forks = fds, ids, _forks
        self.was_cached = False

    @property
    def is_own(self) -> bool:
        """Whether this process took it, and not a process that forked this one."""
        return self.forks == _forks

    @property
    def byte(self) -> int | None:
        """The offset of the byte in the first file that marks the range as allocated; None for a shared range."""
        return self.ids.uid // WIDTH

    def release(self) -> None:
        """Frees the range, which no process has mapped any more; or caches it for the next container of this process,
        if the host has many ranges. The byte of a range that was cached before stays set until the process exits: if
        this process is killed, the next one that wants the range looks whether a process has it mapped."""
        if not self.was_cached:
            self.set_byte(0)
        if not self.is_own or pool().size < CACHE_LEAST or _cache.setdefault("lease", self) is not self:
            if self.was_cached:
                self.set_byte(0)
            self.close()

    def close(self) -> None:
        """Closes the locks. The byte still marks the range as allocated, for the case that a process has it mapped."""
        _close(self.fds)

    def set_byte(self, allocated: int) -> None:
        """Writes to the file whether the range is allocated."""
        if self.is_own:
            os.pwrite(self.fds[0], bytes([allocated]), self.ids.uid // WIDTH)


class Shared(Lease):
    """A range that other containers may have too."""

    __slots__ = ()

    @property
    def byte(self) -> None:
        """None: the byte of a shared range stays set (``_mark_shared``)."""

    def release(self) -> None:
        """Frees the range."""
        self.close()


def _free_cached() -> None:
    """At the exit of the process."""
    cached = _cache.pop("lease", None)
    if cached is not None:
        cached.set_byte(0)
        cached.close()


atexit.register(_free_cached)


def allocate() -> Lease:
    """Allocates a free range. UnsupportedError where none is free; RangeRefusedError where no file can be locked."""
    global _next  # noqa: PLW0603 - a hint: a race does no harm
    cached = _cache.pop("lease", None)
    if cached is not None and cached.forks == _forks:
        if not cached.was_cached:
            cached.set_byte(1)
            cached.was_cached = True
        return cached
    if cached is not None:
        cached.close()
    ranges = pool()
    for index in range(_next + os.getpid(), _next + os.getpid() + ranges.size):
        ids = ranges.at(index % ranges.size)
        lease = None if ids is None else _try_allocate(ids)
        if lease is not None:
            _next = index + 1 - os.getpid()
            return lease
    raise UnsupportedError("userns", "auto", f"all {ranges.size} ranges of ids are taken", "more in /etc/subuid")


def _try_allocate(ids: Range) -> Lease | None:
    """Allocates this range where it is free; else None."""
    fds = _locked(ids, lib.F_WRLCK)
    if not fds:
        return None
    lease = Lease(fds, ids)
    if _is_left_behind(fds[0], ids):
        lease.close()
        return None
    lease.set_byte(1)
    return lease


def allocate_shared(ids: Range) -> Lease:
    """Allocates a range of the caller's choice. Other callers may share it; ``allocate`` does not return it as long as
    it is locked, or a process that outlived the lock has it mapped."""
    fds = _locked(ids, lib.F_RDLCK)
    try:
        if fds and _mark_shared(ids):
            return Shared(fds, ids)
    except BaseException:
        _close(fds)
        raise
    _close(fds)
    value = f"{ids.uid}:{ids.gid}:{ids.width}"
    raise UnsupportedError("userns", value, "a running container was given some of these ids", "others, or auto")


def _mark_shared(ids: Range) -> bool:
    """Sets the byte of each range that overlaps these ids to 2: ``allocate`` then looks for processes that have it
    mapped, until it has been allocated and released once. False where a container still has some of these ids for
    itself."""
    is_exclusive = False
    for index in range(max(0, ids.uid - WIDTH + 1) // WIDTH, (ids.uid + ids.width - 1) // WIDTH + 1):
        fd = _open(index * WIDTH // IDS_PER_FILE)
        try:
            byte = os.pread(fd, 1, index)
            is_exclusive |= byte == b"\1"
            if byte in (b"", b"\0"):
                os.pwrite(fd, b"\2", index)
        finally:
            os.close(fd)
    return not is_exclusive or not _is_mapped(ids)


def _locked(ids: Range, kind: int) -> list[int]:
    """Descriptors of the files that cover these ids, with the locks; [] where another process has a lock."""
    fds: list[int] = []
    try:
        for number in range(ids.uid // IDS_PER_FILE, (ids.uid + ids.width - 1) // IDS_PER_FILE + 1):
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
    """Opens the file with this number, and creates it where it is missing."""
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
            raise as_step_error(e, path) from None
        reason = f"{path}: {(e.strerror or str(e)).lower()}"
        raise RangeRefusedError("userns", "auto", reason, "--userns host") from None


def _lock(fd: int, ids: Range, kind: int) -> bool:
    result = lib.mc_lock(fd, kind, ids.uid, ids.width)
    if result not in (0, -errno.EAGAIN, -errno.EACCES):
        raise OSError(-result, os.strerror(-result))
    return bool(result == 0)


def _is_left_behind(fd: int, ids: Range) -> bool:
    """Whether the range was not released (1), or was shared (2), and a process still has it mapped."""
    return os.pread(fd, 1, ids.uid // WIDTH) not in (b"", b"\0") and _is_mapped(ids)


def _is_mapped(ids: Range) -> bool:
    """Whether the user namespace of some process maps one of these ids."""
    return any(start < ids.uid + ids.width and ids.uid < start + count for start, count in _mapped())


def _mapped() -> Iterator[tuple[int, int]]:
    """(start, count) of each outside range that the user namespace of a process maps."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/uid_map", encoding="utf-8") as f:
                rows = [line.split() for line in f]
        except OSError:
            continue  # the process has ended
        yield from ((int(start), int(count)) for inside, start, count in rows if inside != start)


class Pool(NamedTuple):
    """``size`` consecutive ranges from these ids on, without those that overlap ``excluded`` ([start, end) each)."""

    uid: int
    gid: int
    size: int
    excluded: tuple[tuple[int, int], ...] = ()

    def at(self, index: int) -> Range | None:
        """The range with this index; None where it is excluded."""
        ids = Range(self.uid + index * WIDTH, self.gid + index * WIDTH)
        return None if any(start < ids.uid + WIDTH and ids.uid < end for start, end in self.excluded) else ids


@lru_cache(maxsize=1)
def pool() -> Pool:
    """The ranges that may be allocated, from the files as they were at the first call."""
    uids, gids = subid_entries("/etc/subuid"), subid_entries("/etc/subgid")
    for owner in OWNERS:
        for start, count in ((start, count) for name, start, count in uids if name == owner):
            for first, gid_count in ((first, n) for name, first, n in gids if name == owner):
                size = min(count, gid_count, OUTSIDE_MAX + 1 - start, OUTSIDE_MAX + 1 - first) // WIDTH
                if size > 0:
                    return Pool(start, first, size)
    excluded = tuple((start, start + count) for _, start, count in [*uids, *gids])
    return Pool(FALLBACK[0], FALLBACK[0], len(FALLBACK), excluded)


def subid_entries(path: str) -> list[tuple[str, int, int]]:
    """(name, start, count) of each line of /etc/subuid or /etc/subgid (subuid(5))."""
    entries = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            for line in f:
                name, _, numbers = line.strip().partition(":")
                start, _, count = numbers.partition(":")
                if start.isdecimal() and count.isdecimal():
                    entries.append((name, int(start), int(count)))
    except OSError:
        pass
    return entries

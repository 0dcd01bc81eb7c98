"""Where paths are resolved and files are made: on the host, or in a container, which no path leads out of.

    with host() as h, inside(container) as c:
        fd = c.open("/etc/passwd", os.O_RDONLY)

Theory of operation. A container is hostile, and changes what a path means while it is looked up. So it is looked up by
the kernel, from a descriptor of the container's root (openat2(2), RESOLVE_IN_ROOT), through the mounts that are there;
and who goes on from there names one entry of one directory, and follows no link. What is made belongs to the
container's root: its ids are told by /proc/PID/uid_map, and files are made with them (csrc/plan/identity.c).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minicontainer.errors import Error, sentence
from minicontainer.linux.files import openat2
from minicontainer.linux.process import pidfd_wait
from minicontainer.native import lib, syscall_as

if TYPE_CHECKING:
    from minicontainer.detached.client import Handle
    from minicontainer.linux.process import Process

Map = tuple[tuple[int, int, int], ...]  # first id inside, first id outside, how many (user_namespaces(7))

IN_ROOT = lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS
LINKS = 40  # that are followed: the kernel's own limit (path_resolution(7))
TRIES = 100  # of a look-up that the kernel breaks off, since a directory on its way was moved (openat2(2), EAGAIN)
SAME: Map = ((0, 0, 0xFFFFFFFF),)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Ids(NamedTuple):
    """The ids of a user namespace, and what they are here."""

    uids: Map = SAME
    gids: Map = SAME

    @classmethod
    def of(cls, pid: int) -> Ids:
        """Those of a process."""
        return cls(_map(f"/proc/{pid}/uid_map"), _map(f"/proc/{pid}/gid_map"))

    def here(self, uid: int, gid: int) -> tuple[int, int] | None:
        """What a user and a group of there are here; None where they are nobody."""
        pair = _translate(self.uids, uid, 0), _translate(self.gids, gid, 0)
        return None if -1 in pair else pair

    def there(self, uid: int, gid: int) -> tuple[int, int]:
        """What a user and a group of here are there; nobody keeps his number."""
        user, group = _translate(self.uids, uid, 1), _translate(self.gids, gid, 1)
        return uid if user < 0 else user, gid if group < 0 else group


def _map(path: str) -> Map:
    with open(path, encoding="ascii") as f:
        lines = [line.split() for line in f]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in lines)


def _translate(ranges: Map, number: int, side: int) -> int:
    for entry in ranges:
        if entry[side] <= number < entry[side] + entry[2]:
            return number - entry[side] + entry[1 - side]
    return -1


class Place:
    """A tree of files: its root (a descriptor, or AT_FDCWD), how paths are resolved, whose ids are shown in it."""

    def __init__(self, root: int, resolve: int, ids: Ids, hidden: tuple[str, ...] = ()) -> None:
        """``hidden``: directories that would be covered by something else, if the container ran."""
        self._root, self._resolve, self.ids, self._hidden = root, resolve, ids, hidden
        root_user = ids.here(0, 0)
        same = ids == Ids() or root_user in (None, (os.geteuid(), os.getegid()))
        self._maker = (os.geteuid(), os.getegid()) if same or root_user is None else root_user

    def open(self, path: str, flags: int) -> int:
        """A descriptor of what ``path`` leads to."""
        for attempt in range(TRIES):
            try:
                fd = openat2(self._root, path or ".", flags, 0, self._resolve)
                break
            except OSError as e:
                if e.errno != errno.EAGAIN or attempt == TRIES - 1:
                    raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
        if self._hidden:
            self._check_shown(fd, path)
        return fd

    def locate(self, path: str) -> tuple[int, str]:
        """The directory of what ``path`` leads to, be it there or not, and its name: no link, when it was looked at."""
        for _ in range(LINKS):
            head, name = os.path.split(path.rstrip("/"))
            if name in ("", ".", ".."):
                break
            directory = self.open(head, lib.O_PATH | os.O_DIRECTORY)
            try:
                path = os.path.join(head, os.readlink(name, dir_fd=directory))
            except OSError:
                return directory, name  # no link, or nothing
            os.close(directory)
        else:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _check_shown(self, fd: int, path: str) -> None:
        top, found = (os.readlink(f"/proc/self/fd/{at}") for at in (self._root, fd))
        below = f"/{os.path.relpath(found, top)}/"
        for hidden in self._hidden:
            if below.startswith(f"{hidden}/"):
                os.close(fd)
                raise Error(sentence("cp", path, "is in a volume, which is there only while the container runs"))

    # -- making entries: in the directory ``at``, with a name that must be free; they belong to the container's root

    def make_file(self, at: int, name: str) -> int:
        """A descriptor to write to."""
        return syscall_as(self._maker, "openat", lib.SYS_openat, at, _c(name), CREATE, 0o600, what=(at, name))

    def make_directory(self, at: int, name: str) -> None:
        """mkdir(2), for its owner alone."""
        syscall_as(self._maker, "mkdirat", lib.SYS_mkdirat, at, _c(name), 0o700, what=(at, name))

    def make_link(self, at: int, name: str, text: str) -> None:
        """symlink(2)."""
        syscall_as(self._maker, "symlinkat", lib.SYS_symlinkat, _c(text), at, _c(name), what=(text, at, name))

    def make_node(self, at: int, name: str, mode: int) -> None:
        """mknod(2) of a fifo."""
        syscall_as(self._maker, "mknodat", lib.SYS_mknodat, at, _c(name), mode, 0, what=(at, name, mode))

    def rename(self, at: int, name: str, new: str) -> None:
        """rename(2), in place of what has the new name. What is mounted there stays: for a mount that is not in our own
        namespace the kernel would take it away (Linux 3.18, commit 8ed936b5671b)."""
        try:
            os.close(openat2(at, new, lib.O_PATH | os.O_NOFOLLOW, 0, lib.RESOLVE_NO_XDEV))
        except FileNotFoundError:
            pass
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
            raise Error(sentence("cp", new, "is a mount point, and cannot be replaced")) from None
        syscall_as(self._maker, "renameat2", lib.SYS_renameat2, at, _c(name), at, _c(new), what=(at, name, at, new))


def _c(text: str) -> bytes:
    return os.fsencode(text) + b"\0"


def host() -> Place:
    """The caller's own files, by the caller's own paths."""
    return Place(lib.AT_FDCWD, 0, Ids())


@contextmanager
def inside(container: Handle, what: str) -> Iterator[Place]:
    """A container's files as it sees them; those of its ROOTFS where it does not run. ``what`` is for errors."""
    state, spec = container.state, container.config.spec
    hidden: tuple[str, ...] = ()
    if state.is_running and state.process is not None:
        root, ids = _enter(state.process, f"{what} {container.id[:12]}")
    elif spec.ephemeral:
        raise Error(f"{what} {container.id[:12]}: is not running ({state.status}); what it wrote is gone (ephemeral)")
    else:
        root, ids = os.open(spec.rootfs, lib.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), Ids()
        hidden = tuple(os.path.normpath(mount.target) for mount in spec.mounts)
    try:
        yield Place(root, IN_ROOT, ids, hidden)
    finally:
        os.close(root)


def _enter(process: Process, who: str) -> tuple[int, Ids]:
    """The root that a process has, and its ids."""
    with ExitStack() as stack:
        with held_by(process, who):
            root = os.open(f"/proc/{process.pid}/root", lib.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            ids = Ids.of(process.pid)
        stack.pop_all()
    return root, ids


@contextmanager
def held_by(process: Process, who: str) -> Iterator[None]:
    """For what is opened by the number of a process. Error where that was not its own, all the time."""
    pidfd = process.pidfd()
    try:
        if pidfd >= 0:
            yield
        if pidfd < 0 or pidfd_wait(pidfd, 0):
            raise Error(f"{who}: it has just ended")
    except (FileNotFoundError, ProcessLookupError):
        raise Error(f"{who}: it has just ended") from None
    finally:
        if pidfd >= 0:
            os.close(pidfd)

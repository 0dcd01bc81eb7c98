"""Resolves paths and creates files below a root: the host's, or a container's, which no path can leave.

    with host_root() as h, container_root(container) as c:
        fd = c.open("/etc/passwd", os.O_RDONLY)

Theory of operation. A container is hostile: it may change a path while it is resolved. So the kernel resolves the path,
from a descriptor of the container's root (openat2(2), RESOLVE_IN_ROOT), through the container's mounts. Later steps
name one entry of one open directory, and follow no link. New files belong to the container's root: /proc/PID/uid_map
gives its ids, and files are made with these (csrc/plan/identity.c)."""

from __future__ import annotations

import errno
import os

from minicontainer.errors import Error, sentence
from minicontainer.linux.files import openat2
from minicontainer.linux.process import pidfd_wait
from minicontainer.native import lib, syscall_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack, contextmanager
    from typing import NamedTuple

    from minicontainer.detached.client import Client
    from minicontainer.linux.process import Process
else:
    from minicontainer.light import ExitStack, contextmanager
    from minicontainer.records import NamedTuple

Map = tuple[tuple[int, int, int], ...]  # (first id inside, first id outside, count): user_namespaces(7)

IN_ROOT = lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS
LINKS_MAX = 40  # symbolic links that are followed: the kernel's limit (path_resolution(7))
# Attempts of a look-up that the kernel aborts because a directory on the path was moved (openat2(2), EAGAIN).
LOOKUP_TRIES = 100
IDENTITY: Map = ((0, 0, 0xFFFFFFFF),)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class IdMap(NamedTuple):
    """The id maps of a user namespace, seen from the caller's."""

    uids: Map = IDENTITY
    gids: Map = IDENTITY

    @classmethod
    def of(cls, pid: int) -> IdMap:
        """The maps of the user namespace of a process."""
        return cls(_map(f"/proc/{pid}/uid_map"), _map(f"/proc/{pid}/gid_map"))

    def to_host(self, uid: int, gid: int) -> tuple[int, int] | None:
        """A user and a group of the container as ids of the host; None if one is not mapped."""
        pair = _translate(self.uids, uid, 0), _translate(self.gids, gid, 0)
        return None if -1 in pair else pair

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """A user and a group of the host as ids of the container; an id that is not mapped stays as it is."""
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


class Root:
    """The root of a file tree."""

    def __init__(self, root: int, resolve: int, ids: IdMap, hidden: Sequence[str] = (), guests: Sequence[str] = ()):
        """``root``: a descriptor, or AT_FDCWD; ``resolve``: RESOLVE_* of openat2(2); ``ids``: the owners of files in
        it; ``hidden``: directories on which something would be mounted if the container ran; ``guests``: those on which
        a guest has mounted something of its own."""
        self._root, self._resolve, self.ids, self._hidden = root, resolve, ids, hidden
        self._guests: Sequence[str] = ()
        self._guests = [self._resolved(path) for path in guests]
        root_user = ids.to_host(0, 0)
        same = ids == IdMap() or root_user in (None, (os.geteuid(), os.getegid()))
        self._owner = (os.geteuid(), os.getegid()) if same or root_user is None else root_user

    def open(self, path: str, flags: int) -> int:
        """Opens ``path``, following links."""
        for attempt in range(LOOKUP_TRIES):
            try:
                fd = openat2(self._root, path or ".", flags, 0, self._resolve)
                break
            except OSError as e:
                if e.errno != errno.EAGAIN or attempt == LOOKUP_TRIES - 1:
                    raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
        if self._hidden or self._guests:
            self._check_visible(fd, path)
        return fd

    def is_guests(self, fd: int) -> bool:
        """Whether a guest has mounted something of its own on a directory, of which nothing is seen here."""
        return bool(self._guests) and self._path_of(fd) in self._guests

    def locate(self, path: str) -> tuple[int, str]:
        """The directory (a descriptor) and the name of the file that ``path`` resolves to, existing or not. The name
        was no link at the time of the look-up."""
        for _ in range(LINKS_MAX):
            head, name = os.path.split(path.rstrip("/"))
            if name in ("", ".", ".."):
                break
            directory = self.open(head, lib.O_PATH | os.O_DIRECTORY)
            try:
                path = os.path.join(head, os.readlink(name, dir_fd=directory))
            except OSError:
                return directory, name  # no link, or no entry
            os.close(directory)
        else:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _check_visible(self, fd: int, path: str) -> None:
        below = f"{self._path_of(fd)}/"
        for directories, reason in (
            (self._hidden, "is in a volume, which is there only while the container runs"),
            (
                self._guests,
                "is in a file system of the guest's own; ROOTFS and volumes are shared with the host",
            ),
        ):
            if any(below.startswith(f"{directory}/") for directory in directories):
                os.close(fd)
                raise Error(sentence("cp", path, reason))

    def _path_of(self, fd: int) -> str:
        top, path = (os.readlink(f"/proc/self/fd/{at}") for at in (self._root, fd))
        return f"/{os.path.relpath(path, top)}"

    def _resolved(self, path: str) -> str:
        """The path without links, where there is such a directory."""
        try:
            fd = self.open(path, lib.O_PATH | os.O_DIRECTORY)
        except OSError:
            return os.path.normpath(path)
        try:
            return self._path_of(fd)
        finally:
            os.close(fd)

    # -- new entries of the directory ``at``, under a free name; they belong to the container's root

    def make_file(self, at: int, name: str) -> int:
        """Creates a file; returns a descriptor for writing."""
        return syscall_as(self._owner, "openat", lib.SYS_openat, at, _c(name), CREATE, 0o600, what=(at, name))

    def make_directory(self, at: int, name: str) -> None:
        """mkdir(2), mode 0700."""
        syscall_as(self._owner, "mkdirat", lib.SYS_mkdirat, at, _c(name), 0o700, what=(at, name))

    def make_link(self, at: int, name: str, text: str) -> None:
        """symlink(2)."""
        syscall_as(self._owner, "symlinkat", lib.SYS_symlinkat, _c(text), at, _c(name), what=(text, at, name))

    def make_node(self, at: int, name: str, mode: int) -> None:
        """mknod(2) of a fifo."""
        syscall_as(self._owner, "mknodat", lib.SYS_mknodat, at, _c(name), mode, 0, what=(at, name, mode))

    def rename(self, at: int, name: str, new: str) -> None:
        """rename(2), replacing ``new``. Error if ``new`` is a mount point: the kernel would detach a mount of another
        mount namespace (Linux 3.18, commit 8ed936b5671b)."""
        try:
            os.close(openat2(at, new, lib.O_PATH | os.O_NOFOLLOW, 0, lib.RESOLVE_NO_XDEV))
        except FileNotFoundError:
            pass
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
            raise Error(sentence("cp", new, "is a mount point, and cannot be replaced")) from None
        syscall_as(self._owner, "renameat2", lib.SYS_renameat2, at, _c(name), at, _c(new), what=(at, name, at, new))


def _c(text: str) -> bytes:
    return os.fsencode(text) + b"\0"


def host_root() -> Root:
    """The caller's root and current directory."""
    return Root(lib.AT_FDCWD, 0, IdMap())


@contextmanager
def container_root(container: Client, what: str) -> Iterator[Root]:
    """The root of a container, with its mounts; of a container that does not run, its ROOTFS. Of a machine that runs it
    is the monitor's, which the guest has by virtio-fs. ``what`` is the command."""
    state, spec = container.state, container.config.spec
    hidden: tuple[str, ...] = ()
    guests: tuple[str, ...] = ()
    if state.is_running and state.process is not None:
        if spec.isolation == "kvm":
            container.refuse_image(what)
            from minicontainer.container.machine import division

            guests = division.mounted_inside(spec)
        root, ids = _enter(state.process, f"{what} {container.id[:12]}")
    elif spec.ephemeral:
        raise Error(f"{what} {container.id[:12]}: is not running ({state.status}); what it wrote is gone (ephemeral)")
    else:
        root, ids = os.open(spec.rootfs, lib.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), IdMap()
        hidden = tuple(os.path.normpath(mount.target) for mount in spec.mounts)
    try:
        yield Root(root, IN_ROOT, ids, hidden, guests)
    finally:
        os.close(root)


def _enter(process: Process, prefix: str) -> tuple[int, IdMap]:
    """The root of a process (a descriptor), and its id maps."""
    with ExitStack() as stack:
        with verified(process, prefix):
            root = os.open(f"/proc/{process.pid}/root", lib.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            ids = IdMap.of(process.pid)
        stack.pop_all()
    return root, ids


@contextmanager
def verified(process: Process, prefix: str) -> Iterator[None]:
    """Guards opening files by a pid: Error if the process has ended before or meanwhile, and the pid may be reused."""
    pidfd = process.pidfd()
    try:
        if pidfd >= 0:
            yield
        if pidfd < 0 or pidfd_wait(pidfd, 0):
            raise Error(f"{prefix}: it has just ended")
    except (FileNotFoundError, ProcessLookupError):
        raise Error(f"{prefix}: it has just ended") from None
    finally:
        if pidfd >= 0:
            os.close(pidfd)

"""``cp``: files between the host and a container, both ways, with docker's meaning of SRC and DEST.

Theory of operation. The paths of SRC and DEST are resolved once (paths.py). From there on each entry is a name in an
open directory. It is opened with O_PATH|O_NOFOLLOW, examined with fstat(2), and read only through that descriptor: so
no link is followed, and only files and directories are opened, however the container changes a name meanwhile. On the
other side, an entry is made under a random name, filled through its descriptor, and renamed: an existing entry is
replaced, never written through. Existing directories are merged."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from minicontainer.detached.filedata import copy_data
from minicontainer.detached.paths import container_root, host_root
from minicontainer.errors import Error, sentence
from minicontainer.linux.files import reopen
from minicontainer.linux.mounts import is_kernel_filesystem
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import ExitStack, contextmanager
    from typing import NamedTuple

    from minicontainer.detached.client import Client
    from minicontainer.detached.paths import Root
else:
    from minicontainer.light import ExitStack, contextmanager
    from minicontainer.records import NamedTuple

DEPTH = 200  # nested directories: each takes two descriptors; the default limit is 1,024
ENTRY = lib.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SET_ID = stat.S_ISUID | stat.S_ISGID
OF_TARGET = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a copy that concern the target
GUESTS = "is a file system of the guest's own"
KINDS = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def copy_in(
    container: Client, source: str, target: str, *, follow_link: bool = False, archive: bool = False
) -> list[str]:
    """Copies the host's ``source`` to the container's ``target``; returns a line for each file that was left out.

    follow_link   if SRC is a link, its target is copied
    archive       numerical owners are preserved; else the copies belong to the container's root"""
    if container.config.spec.read_only and not container.state.is_running:
        raise Error(f"cp {container.id[:12]}: its root file system is read-only")
    with container_root(container, "cp") as root:
        return _Copy(host_root(), root, archive).run(source, target, follow_link)


def copy_out(
    container: Client, source: str, target: str, *, follow_link: bool = False, archive: bool = False
) -> list[str]:
    """Copies the container's ``source`` to the host's ``target``, as ``copy_in``; the copies belong to the caller.

    A ``target`` that is a link is refused: an earlier copy may have made it, from a link of the container."""
    if os.path.islink(target):
        raise Error(sentence("cp", target, "is a symbolic link, and could be the container's", "name where it leads"))
    with container_root(container, "cp") as root:
        return _Copy(root, host_root(), archive).run(source, target, follow_link)


class _Paths(NamedTuple):
    """The paths of one entry, for errors."""

    source: str
    target: str


@dataclass
class _Level:
    """A directory that is being copied: a descriptor of each side, and the names that remain."""

    source: int
    target: int
    status: os.stat_result
    is_new: bool
    paths: _Paths
    names: Iterator[str]

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


class _Copy:
    """One run of ``cp``."""

    def __init__(self, source: Root, target: Root, archive: bool) -> None:
        self._source, self._target, self._archive = source, target, archive
        self._skipped: list[str] = []
        self._top: os.stat_result | None = None  # the target directory, which is not copied into itself

    def run(self, source: str, target: str, follow_link: bool) -> list[str]:
        name = os.path.basename(source.rstrip("/"))
        copies_contents = name in ("", ".", "..")  # SRC/.: its contents, not SRC itself
        follows = follow_link or copies_contents or source.endswith("/")
        with ExitStack() as stack:
            with _named_errors(source):
                fd = self._source.open(source, lib.O_PATH | (0 if follows else os.O_NOFOLLOW))
                stack.callback(os.close, fd)
                status = os.fstat(fd)
                if source.endswith("/") and not stat.S_ISDIR(status.st_mode):
                    raise Error(sentence("cp", source, "is not a directory"))
            with _named_errors(target):
                at, name, target_path = self._destination(target, name, stat.S_ISDIR(status.st_mode), copies_contents)
                stack.callback(os.close, at)
            if is_kernel_filesystem(fd):
                self._skip(source, "is a file system of the kernel's")
            elif (level := self._put(fd, status, at, name, _Paths(source, target_path))) is not None:
                self._tree(level)
        return self._skipped

    def _destination(self, path: str, name: str, is_directory: bool, copies_contents: bool) -> tuple[int, str, str]:
        """The directory to copy into, the name in it ("." for the directory itself), and the path of the copy."""
        try:
            directory = self._target.open(path, lib.O_PATH | os.O_DIRECTORY)
        except NotADirectoryError:
            if is_directory or path.endswith("/"):
                raise
        except FileNotFoundError:
            if path.endswith("/") and not is_directory:
                raise
        else:
            is_itself = is_directory and copies_contents
            return directory, "." if is_itself else name, path if is_itself else f"{path.rstrip('/')}/{name}"
        return *self._target.locate(path), path

    # -- a tree

    def _tree(self, level: _Level) -> None:
        levels, self._top = [level], os.fstat(level.target)
        try:
            while levels:
                level = levels[-1]
                name = next(level.names, None)
                if name is None:
                    if level.is_new:
                        with _named_errors(level.paths.target):
                            self._set_attributes(level.target, level.status)
                    levels.pop().close()
                elif (below := self._enter(level, name)) is not None:
                    levels.append(below)
                    if len(levels) > DEPTH:
                        raise Error(sentence("cp", below.paths.source, f"is below more than {DEPTH} directories"))
        finally:
            for level in levels:
                level.close()

    def _enter(self, level: _Level, name: str) -> _Level | None:
        """Copies an entry of a directory; a directory is created, and the caller copies its contents."""
        paths = _Paths(*(f"{path.rstrip('/')}/{name}" for path in level.paths))
        with _named_errors(paths.source):
            try:
                fd = os.open(name, ENTRY, dir_fd=level.source)
            except FileNotFoundError:
                return None  # it was removed meanwhile
        try:
            status = os.fstat(fd)
            if self._top is not None and os.path.samestat(status, self._top):
                self._skip(paths.source, "is what it is copied into")
                return None
            if status.st_dev != level.status.st_dev and is_kernel_filesystem(fd):
                self._skip(paths.source, "is a file system of the kernel's")
                return None
            if self._source.is_guests(fd):
                self._skip(paths.source, GUESTS)
                return None
            return self._put(fd, status, level.target, name, paths)
        finally:
            os.close(fd)

    def _skip(self, path: str, reason: str) -> None:
        self._skipped.append(sentence("cp", path, f"{reason}: left out"))

    # -- an entry

    def _put(self, fd: int, status: os.stat_result, at: int, name: str, paths: _Paths) -> _Level | None:
        """Copies the file ``fd`` (O_PATH) to ``name`` in the directory ``at``; a directory without its contents."""
        kind = stat.S_IFMT(status.st_mode)
        with _named_errors(paths.source):
            if kind == stat.S_IFDIR:
                return self._directory(fd, status, at, name, paths)
            if kind == stat.S_IFREG:
                self._file(fd, status, at, name, paths)
            elif kind == stat.S_IFLNK:
                text = os.readlink("", dir_fd=fd)
                with _named_errors(paths.target):
                    self._make_special(at, name, status, lambda new: self._target.make_link(at, new, text))
            elif kind == stat.S_IFIFO:
                mode = stat.S_IFIFO | stat.S_IMODE(status.st_mode) & ~SET_ID
                with _named_errors(paths.target):
                    self._make_special(at, name, status, lambda new: self._target.make_node(at, new, mode))
            else:
                self._skip(paths.source, f"is {KINDS.get(kind, 'of an unknown kind')}")
        return None

    def _directory(self, fd: int, status: os.stat_result, at: int, name: str, paths: _Paths) -> _Level:
        is_new = True
        with _named_errors(paths.target):
            try:
                self._target.make_directory(at, name)
            except FileExistsError:
                is_new = False
            target = os.open(name, DIRECTORY, dir_fd=at)
        try:
            if self._target.is_guests(target):
                raise Error(sentence("cp", paths.target, GUESTS))
            source = os.open(".", DIRECTORY, dir_fd=fd)
            try:
                return _Level(source, target, status, is_new, paths, iter(os.listdir(source)))
            except BaseException:
                os.close(source)
                raise
        except BaseException:
            os.close(target)
            raise

    def _file(self, fd: int, status: os.stat_result, at: int, name: str, paths: _Paths) -> None:
        source = reopen(fd, os.O_RDONLY)
        try:
            with _named_errors(paths.target):
                self._replace(
                    at, name, lambda new: self._fill(source, status, self._target.make_file(at, new), paths.source)
                )
        finally:
            os.close(source)

    def _fill(self, source: int, status: os.stat_result, target: int, path: str) -> None:
        try:
            with _named_errors(path, but=OF_TARGET):
                copy_data(source, target, status.st_size)
            self._set_attributes(target, status)
        finally:
            os.close(target)

    def _make_special(self, at: int, name: str, status: os.stat_result, make: Callable[[str], None]) -> None:
        """Creates a link or a FIFO, which have no descriptor: ``make`` creates it by name."""

        def make_owned(new: str) -> None:
            make(new)
            if self._archive:
                os.chown(new, *self._owner(status), dir_fd=at, follow_symlinks=False)

        self._replace(at, name, make_owned)

    def _replace(self, at: int, name: str, make: Callable[[str], None]) -> None:
        """Creates an entry under a random name, and renames it to ``name``."""
        new = f".minicontainer-{os.urandom(12).hex()}"
        try:
            make(new)
            self._target.rename(at, new, name)
        except BaseException:
            try:
                os.unlink(new, dir_fd=at)
            except OSError:
                pass  # it was not made
            raise

    # -- attributes

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        uid, gid = self._source.ids.to_container(status.st_uid, status.st_gid)
        owner = self._target.ids.to_host(uid, gid)
        if owner is None:
            raise Error(f"owner {uid}:{gid}: is nobody in the container (without -a it would be its root)")
        return owner

    def _set_attributes(self, fd: int, status: os.stat_result) -> None:
        """Sets owner, mode and times, in this order. Set-id bits are copied with the owner alone."""
        mode = stat.S_IMODE(status.st_mode)
        if self._archive:
            os.fchown(fd, *self._owner(status))
        else:
            mode &= ~SET_ID
        os.fchmod(fd, mode)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _named_errors(path: str, but: Collection[int] = ()) -> Iterator[None]:
    """Turns an OSError into an Error that names ``path``, unless its errno is in ``but``."""
    try:
        yield
    except OSError as e:
        if e.errno in but:
            raise
        raise Error(sentence("cp", path, (e.strerror or str(e)).lower())) from None

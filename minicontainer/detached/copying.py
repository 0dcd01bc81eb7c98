"""``cp``: files between the host and a container, both ways, with docker's meaning of SRC and DEST.

Theory of operation. Where SRC and DEST are is found by path once (paths.py). From there on each entry is a name in a
directory (a descriptor), opened as what it is with O_PATH|O_NOFOLLOW, looked at, and only then read, by that
descriptor: so no link is followed and nothing but files and directories is ever opened, whatever a container makes of a
name meanwhile. On the other side an entry is made under a name that nobody can foresee, filled by descriptor, and
renamed to its own: what was there is replaced and never written through. Directories that are there are added to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from minicontainer.detached.filedata import copy_data
from minicontainer.detached.paths import Place, host, inside
from minicontainer.errors import Error, sentence
from minicontainer.linux.files import reopen
from minicontainer.linux.mounts import is_kernel_filesystem
from minicontainer.native import lib

if TYPE_CHECKING:
    from minicontainer.detached.client import Handle

DEPTH = 200  # directories in directories: two descriptors are open for each, of the 1,024 that there are by default
ENTRY = lib.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SET_ID = stat.S_ISUID | stat.S_ISGID
OF_TARGET = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of copying: not of the file that is read
KINDS = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def copy_in(
    container: Handle, source: str, target: str, *, follow_link: bool = False, archive: bool = False
) -> list[str]:
    """From the host's ``source`` to the container's ``target``; what was left out, a line each.

    follow_link   SRC is what it leads to, where it is a link
    archive       owners are kept, by number; else what is made belongs to the container's root"""
    if container.config.spec.read_only and not container.state.is_running:
        raise Error(f"cp {container.id[:12]}: its root file system is read-only")
    with inside(container, "cp") as there:
        return _Copy(host(), there, archive).run(source, target, follow_link)


def copy_out(
    container: Handle, source: str, target: str, *, follow_link: bool = False, archive: bool = False
) -> list[str]:
    """From the container's ``source`` to the host's ``target``, as ``copy_in``; what is made belongs to the caller.

    A ``target`` that is a link is refused: a copy before could have made it, of the container's."""
    if os.path.islink(target):
        raise Error(sentence("cp", target, "is a symbolic link, and could be the container's", "name where it leads"))
    with inside(container, "cp") as there:
        return _Copy(there, host(), archive).run(source, target, follow_link)


class _Paths(NamedTuple):
    """Of one entry, as errors name it."""

    source: str
    target: str


@dataclass
class _Level:
    """A directory that is being copied: both sides as descriptors, and the names that are still to come."""

    source: int
    target: int
    seen: os.stat_result
    is_new: bool
    paths: _Paths
    names: Iterator[str]

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


class _Copy:
    """One copy."""

    def __init__(self, source: Place, target: Place, archive: bool) -> None:
        self._source, self._target, self._archive = source, target, archive
        self._skipped: list[str] = []
        self._top: os.stat_result | None = None  # the directory that is copied into: never itself copied

    def run(self, source: str, target: str, follow_link: bool) -> list[str]:
        name = os.path.basename(source.rstrip("/"))
        has_contents = name in ("", ".", "..")  # of SRC are meant, not SRC
        is_led = follow_link or has_contents or source.endswith("/")
        with ExitStack() as stack:
            with _named(source):
                fd = self._source.open(source, lib.O_PATH | (0 if is_led else os.O_NOFOLLOW))
                stack.callback(os.close, fd)
                seen = os.fstat(fd)
                if source.endswith("/") and not stat.S_ISDIR(seen.st_mode):
                    raise Error(sentence("cp", source, "is not a directory"))
            with _named(target):
                at, name, there = self._destination(target, name, stat.S_ISDIR(seen.st_mode), has_contents)
                stack.callback(os.close, at)
            if is_kernel_filesystem(fd):
                self._skip(source, "is a file system of the kernel's")
            elif (level := self._put(fd, seen, at, name, _Paths(source, there))) is not None:
                self._tree(level)
        return self._skipped

    def _destination(self, path: str, name: str, is_directory: bool, has_contents: bool) -> tuple[int, str, str]:
        """The directory to copy into, the name there ("." for the directory itself), and its path."""
        try:
            there = self._target.open(path, lib.O_PATH | os.O_DIRECTORY)
        except NotADirectoryError:
            if is_directory or path.endswith("/"):
                raise
        except FileNotFoundError:
            if path.endswith("/") and not is_directory:
                raise
        else:
            is_itself = is_directory and has_contents
            return there, "." if is_itself else name, path if is_itself else f"{path.rstrip('/')}/{name}"
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
                        with _named(level.paths.target):
                            self._dress(level.target, level.seen)
                    levels.pop().close()
                elif (below := self._enter(level, name)) is not None:
                    levels.append(below)
                    if len(levels) > DEPTH:
                        raise Error(sentence("cp", below.paths.source, f"is below more than {DEPTH} directories"))
        finally:
            for level in levels:
                level.close()

    def _enter(self, level: _Level, name: str) -> _Level | None:
        """Copies an entry of a directory; a directory is only begun."""
        paths = _Paths(*(f"{path.rstrip('/')}/{name}" for path in level.paths))
        with _named(paths.source):
            try:
                fd = os.open(name, ENTRY, dir_fd=level.source)
            except FileNotFoundError:
                return None  # it has gone meanwhile
        try:
            seen = os.fstat(fd)
            if self._top is not None and os.path.samestat(seen, self._top):
                self._skip(paths.source, "is what it is copied into")
                return None
            if seen.st_dev != level.seen.st_dev and is_kernel_filesystem(fd):
                self._skip(paths.source, "is a file system of the kernel's")
                return None
            return self._put(fd, seen, level.target, name, paths)
        finally:
            os.close(fd)

    def _skip(self, path: str, reason: str) -> None:
        self._skipped.append(sentence("cp", path, f"{reason}: left out"))

    # -- an entry

    def _put(self, fd: int, seen: os.stat_result, at: int, name: str, paths: _Paths) -> _Level | None:
        """What ``fd`` (O_PATH) is, as ``name`` in the directory ``at``; a directory is only begun."""
        kind = stat.S_IFMT(seen.st_mode)
        with _named(paths.source):
            if kind == stat.S_IFDIR:
                return self._directory(fd, seen, at, name, paths)
            if kind == stat.S_IFREG:
                self._file(fd, seen, at, name, paths)
            elif kind == stat.S_IFLNK:
                text = os.readlink("", dir_fd=fd)
                with _named(paths.target):
                    self._bare(at, name, seen, lambda new: self._target.make_link(at, new, text))
            elif kind == stat.S_IFIFO:
                mode = stat.S_IFIFO | stat.S_IMODE(seen.st_mode) & ~SET_ID
                with _named(paths.target):
                    self._bare(at, name, seen, lambda new: self._target.make_node(at, new, mode))
            else:
                self._skip(paths.source, f"is {KINDS.get(kind, 'of an unknown kind')}")
        return None

    def _directory(self, fd: int, seen: os.stat_result, at: int, name: str, paths: _Paths) -> _Level:
        is_new = True
        with _named(paths.target):
            try:
                self._target.make_directory(at, name)
            except FileExistsError:
                is_new = False
            target = os.open(name, DIRECTORY, dir_fd=at)
        try:
            source = os.open(".", DIRECTORY, dir_fd=fd)
            try:
                return _Level(source, target, seen, is_new, paths, iter(os.listdir(source)))
            except BaseException:
                os.close(source)
                raise
        except BaseException:
            os.close(target)
            raise

    def _file(self, fd: int, seen: os.stat_result, at: int, name: str, paths: _Paths) -> None:
        source = reopen(fd, os.O_RDONLY)
        try:
            with _named(paths.target):
                self._replace(
                    at, name, lambda new: self._fill(source, seen, self._target.make_file(at, new), paths.source)
                )
        finally:
            os.close(source)

    def _fill(self, source: int, seen: os.stat_result, target: int, path: str) -> None:
        try:
            with _named(path, but=OF_TARGET):
                copy_data(source, target, seen.st_size)
            self._dress(target, seen)
        finally:
            os.close(target)

    def _bare(self, at: int, name: str, seen: os.stat_result, make: Callable[[str], None]) -> None:
        """What cannot be opened: a link, a fifo."""

        def made(new: str) -> None:
            make(new)
            if self._archive:
                os.chown(new, *self._owner(seen), dir_fd=at, follow_symlinks=False)

        self._replace(at, name, made)

    def _replace(self, at: int, name: str, make: Callable[[str], None]) -> None:
        """Has an entry made under another name, and gives it its own."""
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

    # -- looks

    def _owner(self, seen: os.stat_result) -> tuple[int, int]:
        uid, gid = self._source.ids.there(seen.st_uid, seen.st_gid)
        owner = self._target.ids.here(uid, gid)
        if owner is None:
            raise Error(f"owner {uid}:{gid}: is nobody in the container (without -a it would be its root)")
        return owner

    def _dress(self, fd: int, seen: os.stat_result) -> None:
        """Owner, mode and time, in this order. The rights of an owner (set-id) go with the owner."""
        mode = stat.S_IMODE(seen.st_mode)
        if self._archive:
            os.fchown(fd, *self._owner(seen))
        else:
            mode &= ~SET_ID
        os.fchmod(fd, mode)
        os.utime(fd, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@contextmanager
def _named(path: str, but: Collection[int] = ()) -> Iterator[None]:
    """An OSError becomes an Error that names ``path``; not of an errno in ``but``."""
    try:
        yield
    except OSError as e:
        if e.errno in but:
            raise
        raise Error(sentence("cp", path, (e.strerror or str(e)).lower())) from None

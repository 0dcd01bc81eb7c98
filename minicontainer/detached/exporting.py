"""``export``: a container's root file system as a tar archive (pax), as docker's.

Theory of operation. The tree is walked by descriptors from the container's root. Each entry is a name in a directory,
opened as what it is (O_PATH|O_NOFOLLOW) and on no other mount (openat2(2), RESOLVE_NO_XDEV): no link is followed,
nothing but files and directories is ever opened, and of what is mounted in it (volumes, /proc, /dev) there is an empty
file or directory, whatever the container makes of a name meanwhile. Owners are the container's own numbers. A file has
the size that it had when it was looked at: what it grows by is left out, what it shrinks by is zeros.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from minicontainer.container import host
from minicontainer.detached.paths import Ids, Map, inside
from minicontainer.errors import Error, SpecError, sentence
from minicontainer.linux.files import openat2, reopen
from minicontainer.native import lib

if TYPE_CHECKING:
    from minicontainer.detached.client import Handle
    from minicontainer.spec import Spec

DEPTH = 200  # directories in directories: a descriptor is open for each
STAY = lib.RESOLVE_NO_XDEV | lib.RESOLVE_NO_SYMLINKS | lib.RESOLVE_BENEATH
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}
CAPABILITY = "security.capability"
REVISION_2, REVISION_3 = 0x02000000, 0x03000000  # struct vfs_cap_data, and vfs_ns_cap_data: with the id of a root


def export(container: Handle, target: str | IO[bytes]) -> list[str]:
    """Writes the archive to a path, or to what can be written to; what was left out, a line each.

    A file at the path is replaced when all is written; nothing is left there where it could not be."""
    with inside(container, "export") as place:
        top = place.open("/", DIRECTORY)
        try:
            ids = place.ids if container.state.is_running else _ids_of(container.config.spec)
            if not isinstance(target, str):
                return _Export(target, ids, str(getattr(target, "name", "")).strip("<>")).run(top)
            with replaced(target) as file:
                return _Export(file, ids, target).run(top)
        finally:
            os.close(top)


def _ids_of(spec: Spec) -> Ids:
    """Whose ids the files of ROOTFS are while nothing runs in it: an ordinary user's own are another's inside."""
    mode = host.userns_mode(spec)
    if mode not in ("private", "keep-id"):
        return Ids()
    from minicontainer.container.ids import mappings

    def extents(path: str, own: int) -> Map:
        further = mappings.subordinate(path, os.geteuid())
        return tuple(mappings.extents(mode, own, further)) if further else ((own if mode == "keep-id" else 0, own, 1),)

    return Ids(extents("/etc/subuid", os.geteuid()), extents("/etc/subgid", os.getegid()))


@contextmanager
def replaced(path: str) -> Iterator[IO[bytes]]:
    """A new file, for its owner alone, that takes the place of what is at ``path`` at the end; what is no file (a fifo,
    /dev/null) is written to."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb", buffering=0) as file:
                yield file
            return
    except FileNotFoundError:
        pass
    part = os.path.join(os.path.dirname(path), f".{os.urandom(4).hex()}.tar")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise SpecError("output", path, (e.strerror or str(e)).lower()) from None
    try:
        with open(fd, "wb", buffering=0) as file:
            yield file
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise


class _Export:
    """One archive, in a file of that name."""

    def __init__(self, file: IO[bytes], ids: Ids, name: str) -> None:
        self._tar = tarfile.TarFile(fileobj=_Output(file, name), mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]
        self._ids = ids
        self._links: dict[tuple[int, int], str] = {}  # files that have further names: the first
        self._skipped: list[str] = []

    def run(self, top: int) -> list[str]:
        levels: list[tuple[int, str, Iterator[str]]] = [(os.dup(top), "", _names(top))]
        try:
            while levels:
                directory, path, names = levels[-1]
                if (name := next(names, None)) is None:
                    os.close(levels.pop()[0])
                    continue
                below = f"{path}/{name}" if path else name
                with _named(below):
                    if (entered := self._entry(directory, name, below)) >= 0:
                        levels.append((entered, below, _names(entered)))
                if len(levels) > DEPTH:
                    raise Error(sentence("export", below, f"is below more than {DEPTH} directories"))
            self._tar.close()
        finally:
            for directory, _, _ in levels:
                os.close(directory)
        return self._skipped

    def _entry(self, directory: int, name: str, path: str) -> int:
        """Writes one; a descriptor of a directory to go on with, else -1."""
        try:
            fd = openat2(directory, name, lib.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, STAY)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return -1  # it has gone meanwhile
            if e.errno == errno.EXDEV:
                self._mount_point(os.stat(name, dir_fd=directory, follow_symlinks=False), path)
                return -1
            raise
        try:
            return self._found(fd, path)
        finally:
            os.close(fd)

    def _found(self, fd: int, path: str) -> int:
        seen = os.fstat(fd)
        kind = stat.S_IFMT(seen.st_mode)
        if kind not in KINDS:
            self._skipped.append(sentence("export", f"/{path}", "is a socket: left out"))
            return -1
        info = self._info(seen, path)
        if kind == stat.S_IFDIR:
            opened = os.open(".", DIRECTORY, dir_fd=fd)
            info.pax_headers = _attributes(opened)
            self._tar.addfile(info)
            return opened
        if seen.st_nlink > 1 and (first := self._links.setdefault((seen.st_dev, seen.st_ino), path)) != path:
            info.type, info.linkname = tarfile.LNKTYPE, first
            self._tar.addfile(info)
        elif kind == stat.S_IFREG:
            self._file(fd, info, seen.st_size)
        else:
            if kind == stat.S_IFLNK:
                info.linkname = os.readlink("", dir_fd=fd)
            self._tar.addfile(info)
        return -1

    def _file(self, fd: int, info: tarfile.TarInfo, size: int) -> None:
        with open(reopen(fd, os.O_RDONLY), "rb") as file:
            info.size, info.pax_headers = size, _attributes(file.fileno())
            self._tar.addfile(info, _Exactly(file))

    def _mount_point(self, seen: os.stat_result, path: str) -> None:
        """What it was made as is covered: a directory, or a file, of root's."""
        is_directory = stat.S_ISDIR(seen.st_mode)
        info = tarfile.TarInfo(path)
        info.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
        info.mode, info.mtime = 0o755 if is_directory else 0o644, seen.st_mtime_ns / 1e9
        self._tar.addfile(info)

    def _info(self, seen: os.stat_result, path: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.type, info.mode = KINDS[stat.S_IFMT(seen.st_mode)], stat.S_IMODE(seen.st_mode)
        info.uid, info.gid = self._ids.there(seen.st_uid, seen.st_gid)
        info.mtime = seen.st_mtime_ns / 1e9
        if stat.S_ISCHR(seen.st_mode) or stat.S_ISBLK(seen.st_mode):
            info.devmajor, info.devminor = os.major(seen.st_rdev), os.minor(seen.st_rdev)
        return info


class _Output:
    """Where the archive goes, which may be a pipe: what was written is counted."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name, self._size = file, name, 0

    def write(self, data: bytes) -> None:
        """All of it. Error where that cannot be; BrokenPipeError where the reader went away."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BrokenPipeError:
            raise
        except OSError as e:
            raise Error(sentence("export", self._name or "its archive", (e.strerror or str(e)).lower())) from None
        self._size += len(data)

    def tell(self) -> int:
        """The bytes that were written."""
        return self._size


class _Exactly:
    """A file to be read, with zeros after its end."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, count: int = -1, /) -> bytes:
        """``count`` bytes."""
        data: bytes = self._file.read(count)
        return data.ljust(count, b"\0")


def _names(directory: int) -> Iterator[str]:
    return iter(sorted(os.listdir(directory)))


def _attributes(fd: int) -> dict[str, str]:
    """The extended attributes that others can restore, as headers (star(1)'s SCHILY.xattr, which tar(1) and docker
    take)."""
    found = {}
    try:
        for name in os.listxattr(fd):
            if name == CAPABILITY or name.startswith("user."):
                value = os.getxattr(fd, name)
                value = _without_root(value) if name == CAPABILITY else value
                found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    except OSError:
        pass  # this file system has none, or it has just gone
    return found


def _without_root(value: bytes) -> bytes:
    """A file's capabilities as they are outside a user namespace (capabilities(7)): without the id of its root."""
    (magic,) = struct.unpack_from("<I", value)
    if magic & 0xFF000000 != REVISION_3:
        return value
    return struct.pack("<I", magic & 0x00FFFFFF | REVISION_2) + value[4:20]


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except (Error, BrokenPipeError):
        raise
    except OSError as e:
        raise Error(sentence("export", f"/{path}", (e.strerror or str(e)).lower())) from None

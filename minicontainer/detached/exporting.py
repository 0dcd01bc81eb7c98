"""``export``: a container's root file system as a tar archive (pax), as docker's.

Theory of operation. The tree is walked by descriptors from the container's root. Each entry is a name in an open
directory, opened with O_PATH|O_NOFOLLOW and RESOLVE_NO_XDEV (openat2(2)): so no link is followed, and only files and
directories are opened, however the container changes a name meanwhile. A mount point (volumes, /proc, /dev) becomes an
empty file or directory. Owners are ids of the container. A file has the size that fstat(2) returned: bytes that are
written after that are left out, and missing bytes are zeros.
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
from minicontainer.detached.paths import IdMap, Map, Root, container_root
from minicontainer.errors import Error, SpecError, sentence
from minicontainer.linux.files import openat2, reopen
from minicontainer.native import lib

if TYPE_CHECKING:
    from minicontainer.detached.client import Client
    from minicontainer.spec import Spec

DEPTH = 200  # nested directories: each takes a descriptor
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
# VFS_CAP_REVISION_2: struct vfs_cap_data; _3: vfs_ns_cap_data, with the id of a user namespace's root
REVISION_2, REVISION_3 = 0x02000000, 0x03000000


def export(container: Client, target: str | IO[bytes]) -> list[str]:
    """Writes the archive to a path or to a file object; returns a line for each file that was left out.

    A file at the path is replaced when the archive is complete; after an error it is as before."""
    with container_root(container, "export") as root:
        top = root.open("/", DIRECTORY)
        try:
            ids = root.ids if container.state.is_running else _ids_of(container.config.spec)
            if not isinstance(target, str):
                return _Export(target, root, ids, str(getattr(target, "name", "")).strip("<>")).run(top)
            with replaced(target) as file:
                return _Export(file, root, ids, target).run(top)
        finally:
            os.close(top)


def _ids_of(spec: Spec) -> IdMap:
    """The id maps that the container would have if it ran: for an ordinary user, files of ROOTFS have other owners
    inside."""
    mode = host.userns_mode(spec)
    if mode not in ("private", "keep-id"):
        return IdMap()
    from minicontainer.container.ids import mappings

    def extents(path: str, own: int) -> Map:
        further = mappings.subordinate(path, os.geteuid())
        return tuple(mappings.extents(mode, own, further)) if further else ((own if mode == "keep-id" else 0, own, 1),)

    return IdMap(extents("/etc/subuid", os.geteuid()), extents("/etc/subgid", os.getegid()))


@contextmanager
def replaced(path: str) -> Iterator[IO[bytes]]:
    """A new file, mode 0600, that replaces ``path`` at the end. If ``path`` is no regular file (a FIFO, /dev/null),
    that file itself, open for writing."""
    try:
        in_place = not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        in_place = False
    if in_place:
        with open(path, "wb", buffering=0) as file:
            yield file
        return
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
    """One archive of ``root``, written to ``file``; ``name`` is for errors."""

    def __init__(self, file: IO[bytes], root: Root, ids: IdMap, name: str) -> None:
        self._tar = tarfile.TarFile(fileobj=_Output(file, name), mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]
        self._root, self._ids = root, ids
        self._links: dict[tuple[int, int], str] = {}  # (device, inode) of a file with hard links -> its first name
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
                with _named_errors(below):
                    if (opened := self._entry(directory, name, below)) >= 0:
                        levels.append((opened, below, _names(opened)))
                if len(levels) > DEPTH:
                    raise Error(sentence("export", below, f"is below more than {DEPTH} directories"))
            self._tar.close()
        finally:
            for directory, _, _ in levels:
                os.close(directory)
        return self._skipped

    def _entry(self, directory: int, name: str, path: str) -> int:
        """Adds one entry; returns a descriptor if it is a directory to walk, else -1."""
        try:
            fd = openat2(directory, name, lib.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, STAY)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return -1  # it was removed meanwhile
            if e.errno == errno.EXDEV:
                self._mount_point(os.stat(name, dir_fd=directory, follow_symlinks=False), path)
                return -1
            raise
        try:
            if self._root.is_guests(fd):
                self._mount_point(os.fstat(fd), path)
                return -1
            return self._add(fd, path)
        finally:
            os.close(fd)

    def _add(self, fd: int, path: str) -> int:
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in KINDS:
            self._skipped.append(sentence("export", f"/{path}", "is a socket: left out"))
            return -1
        info = self._info(status, path)
        if kind == stat.S_IFDIR:
            opened = os.open(".", DIRECTORY, dir_fd=fd)
            info.pax_headers = _attributes(opened)
            self._tar.addfile(info)
            return opened
        if status.st_nlink > 1 and (first := self._links.setdefault((status.st_dev, status.st_ino), path)) != path:
            info.type, info.linkname = tarfile.LNKTYPE, first
            self._tar.addfile(info)
        elif kind == stat.S_IFREG:
            self._file(fd, info, status.st_size)
        else:
            if kind == stat.S_IFLNK:
                info.linkname = os.readlink("", dir_fd=fd)
            self._tar.addfile(info)
        return -1

    def _file(self, fd: int, info: tarfile.TarInfo, size: int) -> None:
        with open(reopen(fd, os.O_RDONLY), "rb") as file:
            info.size, info.pax_headers = size, _attributes(file.fileno())
            self._tar.addfile(info, _ZeroPadded(file))

    def _mount_point(self, status: os.stat_result, path: str) -> None:
        """Adds a mount point: the covered file or directory cannot be seen, so root owns it."""
        is_directory = stat.S_ISDIR(status.st_mode)
        info = tarfile.TarInfo(path)
        info.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
        info.mode, info.mtime = 0o755 if is_directory else 0o644, status.st_mtime_ns / 1e9
        self._tar.addfile(info)

    def _info(self, status: os.stat_result, path: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.type, info.mode = KINDS[stat.S_IFMT(status.st_mode)], stat.S_IMODE(status.st_mode)
        info.uid, info.gid = self._ids.to_container(status.st_uid, status.st_gid)
        info.mtime = status.st_mtime_ns / 1e9
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return info


class _Output:
    """The output of tarfile, which may be a pipe: it counts the bytes and cannot seek."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name, self._size = file, name, 0

    def write(self, data: bytes) -> None:
        """Writes all of ``data``. Error; BrokenPipeError if the reader has closed the pipe."""
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


class _ZeroPadded:
    """A file that reads as if zeros followed its end."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, count: int = -1, /) -> bytes:
        """``count`` bytes."""
        data: bytes = self._file.read(count)
        return data.ljust(count, b"\0")


def _names(directory: int) -> Iterator[str]:
    return iter(sorted(os.listdir(directory)))


def _attributes(fd: int) -> dict[str, str]:
    """The extended attributes that tar(1) and docker can restore, as headers SCHILY.xattr of star(1)."""
    headers = {}
    try:
        for name in os.listxattr(fd):
            if name == CAPABILITY or name.startswith("user."):
                value = os.getxattr(fd, name)
                value = _without_root(value) if name == CAPABILITY else value
                headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    except OSError:
        pass  # the file system has none, or the file is gone
    return headers


def _without_root(value: bytes) -> bytes:
    """A file's capabilities without the id of a user namespace's root (capabilities(7))."""
    (magic,) = struct.unpack_from("<I", value)
    if magic & 0xFF000000 != REVISION_3:
        return value
    return struct.pack("<I", magic & 0x00FFFFFF | REVISION_2) + value[4:20]


@contextmanager
def _named_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (Error, BrokenPipeError):
        raise
    except OSError as e:
        raise Error(sentence("export", f"/{path}", (e.strerror or str(e)).lower())) from None

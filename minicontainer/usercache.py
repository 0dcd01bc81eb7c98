"""Files below the user's cache directory that are used only if nobody else could have written them.

``$XDG_CACHE_HOME/minicontainer`` (else below ~/.cache) has a directory for each kind. A file counts only if it and its
directory belong to the effective user and no other user can write them. A file is written under another name and
renamed, so that a reader gets all of it or none. Where no file can be written, none is kept.

Large files are not read to see whether they are whole. Each has got the same time of modification, MADE, after it was
written; whoever writes to it later sets another, and it counts no more. The time of access says when it was used.
"""

from __future__ import annotations

import errno
import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap

MADE = 10**18  # nanoseconds: a second that every file system can say
DRAFT = "draft."  # what the names of files begin with that are not whole
LEVELS = 3  # of .cache/minicontainer/KIND, or of $XDG_CACHE_HOME/minicontainer/KIND


def find(kind: str, name: str) -> int | None:
    """A descriptor of a file, for reading; None: there is none that is the user's alone."""
    path = directory(kind)
    if path is None:
        return None
    try:
        at = _open_directory(path)
        try:
            return _open(name, os.O_RDONLY | os.O_NONBLOCK, stat.S_IFREG, at)
        finally:
            os.close(at)
    except OSError:
        return None


def reuse(kind: str, name: str) -> int | None:
    """As ``find``, of a file to which nobody has written since it was kept, and which is marked as used, so that others
    make room first."""
    fd = find(kind, name)
    if fd is None:
        return None
    if os.fstat(fd).st_mtime_ns != MADE:
        os.close(fd)
        return None
    _mark(fd)
    return fd


def keep(kind: str, name: str, data: bytes | mmap.mmap, *, most: int | None = None) -> None:
    """Writes a file. ``most``: the bytes that all files of the kind may have, for which those go that were used longest
    ago; such large files are on the disk before they have their names, so that a power failure leaves none of the right
    size with other content. Errors are ignored: then it is not kept."""
    path = directory(kind)
    if path is None or (most is not None and len(data) > most):
        return
    try:
        if not _create_directory(path):
            return
        at = _open_directory(path)
        try:
            if most is not None:
                _make_room(at, most - len(data))
            _replace(at, name, data, sync=most is not None)
        finally:
            os.close(at)
    except OSError:
        return


class Draft:
    """A file that another program writes, by its ``fd``; at the end of a ``with`` block it is gone, unless it was kept.
    There is one of a kind at a time: another process, or thread, waits for the end of it. No other user can write it.

    A process that is killed leaves nothing: the file has no name until it is kept. Where the file system has none such
    (open(2), O_TMPFILE) it has one, and the next draft removes it.

    OSError, PermissionError: there is no directory that is the user's alone, or no room."""

    def __init__(self, kind: str) -> None:
        self._at = _open_directory(place(kind))
        self._name: str | None = None
        try:
            _lock(self._at)
            for name in os.listdir(self._at):
                if name.startswith(DRAFT):
                    os.unlink(name, dir_fd=self._at)
            self._open()
        except BaseException:
            os.close(self._at)
            raise

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            self.fd = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=self._at)
        except OSError as e:
            if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            self._name = f"{DRAFT}{os.urandom(6).hex()}"
            self.fd = os.open(self._name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self._at)

    def keep(self, name: str, most: int) -> int:
        """Gives the file its name, when it is whole on the disk; ``most`` as for ``keep``. A descriptor of it for
        reading, also where it is too large to be kept. OSError: it cannot be written to the disk."""
        os.fdatasync(self.fd)
        _mark(self.fd)
        fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size <= most:
                _make_room(self._at, most - (0 if self._name else size))
                self._give_name(name)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _give_name(self, name: str) -> None:
        if self._name is not None:
            os.rename(self._name, name, src_dir_fd=self._at, dst_dir_fd=self._at)
            return
        try:
            os.unlink(name, dir_fd=self._at)  # one that somebody else could have written
        except FileNotFoundError:
            pass
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._at, follow_symlinks=True)

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._name is not None:
                os.unlink(self._name, dir_fd=self._at)
        except FileNotFoundError:  # it was kept
            pass
        os.close(self.fd)
        os.close(self._at)


def place(kind: str) -> str:
    """The directory of one kind, made where it is missing. PermissionError: it is not the user's alone."""
    path = directory(kind)
    if path is None or not _create_directory(path):
        raise PermissionError(f"{path or '~'} is not ours alone")
    os.close(_open_directory(path))
    return path


def directory(kind: str) -> str | None:
    """The directory of one kind; None without a home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG base directory specification: a relative path is ignored
        base = os.path.expanduser("~/.cache")
    return f"{base}/minicontainer/{kind}" if base.startswith("/") else None


def _lock(at: int) -> None:
    import fcntl

    try:
        fcntl.flock(at, fcntl.LOCK_EX)
    except OSError:  # a file system without locks of directories
        pass


def _open_directory(path: str) -> int:
    return _open(path, os.O_RDONLY | os.O_DIRECTORY, stat.S_IFDIR)


def _open(path: str, flags: int, kind: int, at: int | None = None) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=at)
    info = os.fstat(fd)
    if stat.S_IFMT(info.st_mode) != kind or info.st_uid != os.geteuid() or info.st_mode & 0o022:
        os.close(fd)
        raise PermissionError(f"{path} is not ours alone")
    return fd


def _create_directory(path: str) -> bool:
    """Creates the directory where what it is below belongs to the effective user. False below another user's (sudo),
    and where there is no home directory (Debian's HOME of services is /nonexistent)."""
    existing, levels = path, 0
    while not os.path.isdir(existing):
        existing, levels = os.path.dirname(existing), levels + 1
    if levels > LEVELS or os.stat(existing).st_uid != os.geteuid():
        return False
    os.makedirs(path, mode=0o700, exist_ok=True)
    return True


def _make_room(at: int, most: int) -> None:
    """Removes the files that were used longest ago, until the others have ``most`` bytes. What a killed process left
    behind goes as the others do."""
    files = []
    for name in os.listdir(at):
        info = os.stat(name, dir_fd=at, follow_symlinks=False)
        files.append((info.st_atime_ns, info.st_size, name))
    total = sum(size for _, size, _ in files)
    for _, size, name in sorted(files):
        if total <= most:
            return
        os.unlink(name, dir_fd=at)
        total -= size


def _replace(at: int, name: str, data: bytes | mmap.mmap, *, sync: bool) -> None:
    new = f"{name}.{os.urandom(6).hex()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=at)
    try:
        with open(fd, "wb", buffering=0) as f:
            if f.write(data) != len(data):
                raise OSError("written in part")
            if sync:
                os.fdatasync(fd)
            _mark(fd)
        os.rename(new, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(new, dir_fd=at)
        raise


def _mark(fd: int) -> None:
    """Marks a file as whole, and as used now."""
    try:
        os.utime(fd, ns=(time.time_ns(), MADE))
    except OSError:  # a file system that is read-only now
        pass

"""Filters that were made before, in files: a new process need not load libseccomp, nor read JSON.

``$XDG_CACHE_HOME/minicontainer/seccomp`` (else below ~/.cache) has one file for each profile and capability mask. It is
believed only where directory and file belong to our effective user and nobody else can write them, and where it holds
the very key that is asked for: profile, capabilities, architecture, kernel. A file also names the library and the
modules it was made by; once one of these has changed, it is made anew. One that is damaged is made anew as well, and
where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

MAGIC = b"minicontainer filter\n"
HEAD = struct.Struct("=IIII")  # checksum of makers and program; lengths of key, makers, program
PRIME = 2**30 - 35  # the remainder is the checksum: no module has to be loaded, and Python's int has digits of 30 bits


def load(name: bytes, key: bytes) -> bytes | None:
    """What was stored under ``name`` with this very key, if that can be believed."""
    place = directory()
    if place is None:
        return None
    try:
        at = _open(place, os.O_RDONLY | os.O_DIRECTORY, stat.S_IFDIR)
        try:
            fd = _open(_file(name), os.O_RDONLY | os.O_NONBLOCK, stat.S_IFREG, at)
        finally:
            os.close(at)
        with open(fd, "rb", buffering=0) as f:
            data = f.readall()
    except OSError:
        return None
    return _unpack(data, key)


def store(name: bytes, key: bytes, program: bytes, makers: Iterable[str]) -> None:
    """Keeps a program for later, with the files that it was made by. Where that is not possible, it is not kept."""
    place = directory()
    if place is None:
        return
    try:
        made_by = os.fsencode("\n".join(f"{_version(path)} {path}" for path in makers))
        head = HEAD.pack(_checksum(made_by + program), len(key), len(made_by), len(program))
        if not _make(place):
            return
        at = _open(place, os.O_RDONLY | os.O_DIRECTORY, stat.S_IFDIR)
        try:
            _replace(at, _file(name), b"".join((MAGIC, head, key, made_by, program)))
        finally:
            os.close(at)
    except OSError:
        return


def directory() -> str | None:
    """Where the files are; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG base directory specification: a relative one is ignored
        base = os.path.expanduser("~/.cache")
    return f"{base}/minicontainer/seccomp" if base.startswith("/") else None


def _open(path: str, flags: int, kind: int, at: int | None = None) -> int:
    """A descriptor of what is ours alone to write. OSError where it is not."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=at)
    info = os.fstat(fd)
    if stat.S_IFMT(info.st_mode) != kind or info.st_uid != os.geteuid() or info.st_mode & 0o022:
        os.close(fd)
        raise PermissionError(f"{path} is not ours alone")
    return fd


def _unpack(data: bytes, key: bytes) -> bytes | None:
    start = len(MAGIC) + HEAD.size
    if len(data) < start or not data.startswith(MAGIC):
        return None
    checksum, keys, made_by, program = HEAD.unpack_from(data, len(MAGIC))
    middle = start + keys
    if len(data) != middle + made_by + program or keys != len(key) or not data.startswith(key, start):
        return None
    if checksum != _checksum(data[middle:]):
        return None
    listed = os.fsdecode(data[middle : middle + made_by])
    return data[middle + made_by :] if all(map(_unchanged, listed.split("\n"))) else None


def _unchanged(line: str) -> bool:
    """Whether a file is as it was; also where it is gone, for then there is no later one."""
    version, _, path = line.partition(" ")
    try:
        return _version(path) == version
    except OSError:
        return True


def _version(path: str) -> str:
    info = os.stat(path)
    return f"{info.st_mtime_ns}.{info.st_size}.{info.st_ino}"


def _checksum(data: bytes) -> int:
    return int.from_bytes(data, "little") % PRIME


def _file(name: bytes) -> str:
    """A short name: two that share it would only take each other's place."""
    return f"{_checksum(name):08x}"


def _make(place: str) -> bool:
    """Makes the directory, in a home that is ours: not as root below a user's (sudo)."""
    existing = place
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    if os.stat(existing).st_uid != os.geteuid():
        return False
    os.makedirs(place, mode=0o700, exist_ok=True)
    return True


def _replace(at: int, name: str, data: bytes) -> None:
    """Written whole under another name, then renamed: a reader finds the old one or the new one."""
    new = f"{name}.{os.urandom(6).hex()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=at)
    try:
        with open(fd, "wb", buffering=0) as f:
            if f.write(data) != len(data):
                raise OSError("written in part")
        os.rename(new, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(new, dir_fd=at)
        raise

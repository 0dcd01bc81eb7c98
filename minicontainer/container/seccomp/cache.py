"""Caches compiled filters in files, so that a new process loads neither libseccomp nor JSON.

``$XDG_CACHE_HOME/minicontainer/seccomp`` (else below ~/.cache) has a file for each profile and capability mask. A file
is used only if it and its directory belong to the effective user and no other user can write them, and if it contains
the same key: profile, capabilities, architecture, kernel. A file also lists the library and the modules that compiled
it; when one of these has changed, or the file is damaged, the filter is compiled again. Where no file can be written,
filters are not cached.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

MAGIC = b"minicontainer filter\n"
HEAD = struct.Struct("=IIII")  # checksum of sources and program; lengths of key, sources, program
PRIME = 2**30 - 35  # a checksum is the remainder by this prime: needs no module, and is fast for Python's 30-bit digits


def load(name: bytes, key: bytes) -> bytes | None:
    """The program that was stored under ``name`` with this key; None where there is none, or the file is not
    trusted."""
    path = directory()
    if path is None:
        return None
    try:
        at = _open(path, os.O_RDONLY | os.O_DIRECTORY, stat.S_IFDIR)
        try:
            fd = _open(_file(name), os.O_RDONLY | os.O_NONBLOCK, stat.S_IFREG, at)
        finally:
            os.close(at)
        with open(fd, "rb", buffering=0) as f:
            data = f.readall()
    except OSError:
        return None
    return _unpack(data, key)


def store(name: bytes, key: bytes, program: bytes, sources: Iterable[str]) -> None:
    """Stores a program, with the paths of the files that compiled it. Errors are ignored: then the program is not
    cached."""
    path = directory()
    if path is None:
        return
    try:
        versions = os.fsencode("\n".join(f"{_version(source)} {source}" for source in sources))
        head = HEAD.pack(_checksum(versions + program), len(key), len(versions), len(program))
        if not _create_directory(path):
            return
        at = _open(path, os.O_RDONLY | os.O_DIRECTORY, stat.S_IFDIR)
        try:
            _replace(at, _file(name), b"".join((MAGIC, head, key, versions, program)))
        finally:
            os.close(at)
    except OSError:
        return


def directory() -> str | None:
    """The directory of the cache; None without a home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG base directory specification: a relative path is ignored
        base = os.path.expanduser("~/.cache")
    return f"{base}/minicontainer/seccomp" if base.startswith("/") else None


def _open(path: str, flags: int, kind: int, at: int | None = None) -> int:
    """Opens a file or directory that belongs to the effective user and that no other user can write; else OSError."""
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
    checksum, key_size, versions_size, program_size = HEAD.unpack_from(data, len(MAGIC))
    middle = start + key_size
    if len(data) != middle + versions_size + program_size or key_size != len(key) or not data.startswith(key, start):
        return None
    if checksum != _checksum(data[middle:]):
        return None
    versions = os.fsdecode(data[middle : middle + versions_size])
    return data[middle + versions_size :] if all(map(_unchanged, versions.split("\n"))) else None


def _unchanged(line: str) -> bool:
    """Whether a source file is unchanged. True where it was removed: then there is no newer version."""
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
    """The file for a name. Two names that share a file only replace each other's entry."""
    return f"{_checksum(name):08x}"


def _create_directory(path: str) -> bool:
    """Creates the directory where its parent belongs to the effective user; False below another user's (sudo)."""
    existing = path
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    if os.stat(existing).st_uid != os.geteuid():
        return False
    os.makedirs(path, mode=0o700, exist_ok=True)
    return True


def _replace(at: int, name: str, data: bytes) -> None:
    """Writes a file under another name and renames it, so that a reader gets the old content or the new."""
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

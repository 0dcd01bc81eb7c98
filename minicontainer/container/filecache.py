"""Caches what was compiled in files, for a new process: seccomp filters, and plans (plancache.py).

They are files of usercache.py. One is used only if it contains the same key. It also lists the libraries and modules
that compiled it; when one of these has changed, or the file is damaged, it is compiled again.
"""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it
import os

from minicontainer import usercache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"minicontainer cache\n"
HEAD = struct.Struct("=IIII")  # checksum of sources and data; lengths of key, sources, data
PRIME = 2**30 - 35  # a checksum is the remainder by this prime: needs no module, and is fast for Python's 30-bit digits


def load(kind: str, name: bytes, key: bytes) -> bytes | None:
    """The data that was stored under ``name`` with this key; None where there is none, or the file is not trusted."""
    fd = usercache.find(kind, _file(name))
    if fd is None:
        return None
    try:
        with open(fd, "rb", buffering=0) as f:
            return _unpack(f.readall(), key)
    except OSError:
        return None


def store(kind: str, name: bytes, key: bytes, data: bytes, sources: Iterable[str]) -> None:
    """Stores data, with the paths of the files that compiled it. Errors are ignored: then it is not cached."""
    sources = tuple(sources)
    if any("\n" in source for source in sources):  # which ends a line of the list
        return
    try:
        versions = os.fsencode("\n".join(f"{_version(source)} {source}" for source in sources))
    except OSError:
        return
    head = HEAD.pack(_checksum(versions + data), len(key), len(versions), len(data))
    usercache.keep(kind, _file(name), b"".join((MAGIC, head, key, versions, data)))


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
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _version(path: str) -> str:
    info = os.stat(path)
    return f"{info.st_mtime_ns}.{info.st_size}.{info.st_ino}"


def _checksum(data: bytes) -> int:
    return int.from_bytes(data, "little") % PRIME


def _file(name: bytes) -> str:
    """The file for a name. Two names that share a file only replace each other's entry."""
    return f"{_checksum(name):08x}"

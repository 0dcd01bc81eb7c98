"""Unpacked kernels are kept in files, since to unpack one takes longer than to read it.

``~/.cache/minicontainer/kernels`` (usercache.py) has a file for each, named by the BLAKE2b of the packed bytes and by
the unpacked size.
"""

from __future__ import annotations

import os

from minicontainer import usercache
from minicontainer.kvm.boot import unpack
from minicontainer.kvm.boot.kernel import HEAD, InMemory, Kernel

KIND = "kernels"
LEAST = 4 << 20  # bytes unpacked: what is smaller is unpacked sooner than looked up
TOTAL_MAX = 512 << 20  # bytes of all files


class Kept(Kernel):
    """An unpacked kernel in a file of the cache. ``path``, for errors, is that of the packed one."""

    def __init__(self, path: str, fd: int, size: int) -> None:
        self.path, self.fd, self.size, self.inner = path, fd, size, None
        self.head = os.pread(fd, HEAD, 0)


def unpacked(path: str, packed: bytes, size: int) -> Kernel | None:
    """The kernel of ``size`` bytes that is packed in ``packed``, in a format of unpack.py, from a file if one has it;
    None: it is damaged."""
    name = _name(packed, size) if size >= LEAST else ""
    kept = _find(path, name, size) if name else None
    if kept is not None:
        return kept
    content = unpack.unpack(packed, size)
    if content is None:
        return None
    if name:
        usercache.keep(KIND, name, content, most=TOTAL_MAX)
    return InMemory(path, content)


def _name(packed: bytes, size: int) -> str:
    try:
        from _blake2 import blake2b  # hashlib loads OpenSSL
    except ImportError:
        from hashlib import blake2b
    return f"{blake2b(packed, digest_size=32).hexdigest()}-{size:x}"


def _find(path: str, name: str, size: int) -> Kept | None:
    fd = usercache.reuse(KIND, name)
    if fd is None:
        return None
    if os.fstat(fd).st_size != size:
        os.close(fd)
        return None
    return Kept(path, fd, size)

"""Unpacks kernels: whole files, and what is in a bzImage."""

from __future__ import annotations

import mmap

from minicontainer.kvm.boot.kernel import InMemory, Kernel
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ZSTD = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1
LZ4_LEGACY = b"\x02\x21\x4c\x18"  # lz4's doc/lz4_Frame_format.md, "Legacy frame"
LZ4_BLOCK = 8 << 20  # bytes of a legacy frame's block, unpacked
LZMA_MEMORY = 256 << 20  # limit for the decompressor, in bytes; Linux's dictionaries have 128 MiB at most
WHOLE_MAX = 1 << 30  # bytes of a file, unpacked


def whole(kernel: Kernel) -> InMemory:
    """The kernel in a file that is packed by gzip. Bytes behind the packed data are left alone, as by gunzip."""
    import zlib

    size = int.from_bytes(kernel.read(max(0, kernel.size - 4), min(4, kernel.size), "its size"), "little")
    if size > WHOLE_MAX:
        raise kernel.error(f"is packed by gzip, and says that it unpacks to {size} bytes: at most {WHOLE_MAX} are read")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(kernel.read(0, kernel.size, "the file"), WHOLE_MAX)
    except zlib.error as e:
        raise kernel.error(f"is packed by gzip, and damaged ({e})") from None
    if not unpacker.eof:
        raise kernel.error("is packed by gzip, and cut off or longer than it says")
    return InMemory(kernel.path, content)


def unpack(packed: bytes, size: int) -> bytes | mmap.mmap | None:
    """``size`` bytes, from data that begins with one of FORMATS; None: it is damaged. UnsupportedError: a library that
    this needs is missing."""
    return next(make(packed, size) for magic, make in FORMATS.items() if packed.startswith(magic))


# ---- formats


def lz4(packed: bytes, size: int) -> mmap.mmap | None:
    """Unpacks a legacy frame: blocks, each after its length; each but the last unpacks to LZ4_BLOCK bytes."""
    content = mmap.mmap(-1, size or 1)
    source, target = ffi.from_buffer(packed), ffi.from_buffer(content)
    at, done, end = len(LZ4_LEGACY), 0, len(packed) - 4
    while at + 4 <= end and done < size:
        length = int.from_bytes(packed[at : at + 4], "little")
        at += 4
        room = min(LZ4_BLOCK, size - done)
        count = -1 if at + length > end else lib.mc_lz4_block(source + at, length, target + done, room)
        if count < 0:
            break
        at, done = at + length, done + count
    ffi.release(target)
    if done == size:
        return content
    content.close()
    return None


def _with(module: str, make: str, **options: int) -> Callable[[bytes, int], bytes | None]:
    """A function that unpacks with a module of the standard library."""

    def unpack(packed: bytes, size: int) -> bytes | None:
        import importlib

        decompressor: Any = getattr(importlib.import_module(module), make)
        try:
            content: bytes = decompressor(**options).decompress(packed, size + 1)
        except Exception:  # each module has its own exception for bad data
            return None
        return content if len(content) == size else None

    return unpack


def _zstd(packed: bytes, size: int) -> mmap.mmap | None:
    from minicontainer.kvm.boot import zstd

    return zstd.unpack(packed, size)


FORMATS: dict[bytes, Callable[[bytes, int], bytes | mmap.mmap | None]] = {
    LZ4_LEGACY: lz4,
    ZSTD: _zstd,
    b"\xfd7zXZ": _with("lzma", "LZMADecompressor", memlimit=LZMA_MEMORY),
    b"\x5d\0\0": _with("lzma", "LZMADecompressor", memlimit=LZMA_MEMORY),
    b"\x1f\x8b": _with("zlib", "decompressobj", wbits=31),  # with a gzip header
    b"BZh": _with("bz2", "BZ2Decompressor"),
}

"""The kernel inside a bzImage: unpacked by the host instead of the guest, and entered through its PVH note."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

from minicontainer.kvm.boot import elf, pvh
from minicontainer.kvm.boot.kernel import Entry, InMemory, Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory
from minicontainer.native import ffi, lib

LZ4_LEGACY = b"\x02\x21\x4c\x18"  # lz4's doc/lz4_Frame_format.md, "Legacy frame"
LZ4_BLOCK = 8 << 20  # bytes of a legacy frame's block, unpacked
LZMA_MEMORY = 256 << 20  # limit for the decompressor, in bytes; Linux's dictionaries have 128 MiB at most


def load(
    kernel: Kernel, payload: tuple[int, int], memory: GuestMemory, initrd: str | None, append: str | None
) -> Entry | str:
    """Unpacks the payload at (offset, length) of the file and loads it. A string: why it cannot be loaded."""
    offset, length = payload
    if length < 8:
        return "it does not say where its payload is"
    start = kernel.read(offset, 8, "its payload")
    unpack = next((f for magic, f in FORMATS.items() if start.startswith(magic)), None)
    if unpack is None:
        return f"its payload's format (it begins with {start[:4].hex(' ')}) is unknown here"
    end = kernel.read(offset + length - 4, 4, "its payload")  # appended by Linux's build (boot.rst, "payload_length")
    size = int.from_bytes(end, "little")
    if max(size, length) > memory.size:
        sizes = f"its payload of {length >> 20} MiB unpacks to {size >> 20}"
        return f"{sizes} MiB, and there are {memory.size >> 20} MiB of memory"
    content = unpack(kernel.read(offset, length, "its payload"), size)
    if content is None:
        return "its payload is damaged"
    try:
        inner = InMemory(kernel.path, content)
        if inner.kind != "elf64":
            return "its payload is no ELF file"
        headers = elf.parse(inner)
        if headers.pvh is None:
            return "it has no PVH note (CONFIG_PVH)"
        return pvh.load(inner, memory, headers, initrd, append)
    except KernelError as error:
        return error.reason
    finally:
        if isinstance(content, mmap.mmap):
            content.close()


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


FORMATS: dict[bytes, Callable[[bytes, int], bytes | mmap.mmap | None]] = {
    LZ4_LEGACY: lz4,
    b"\xfd7zXZ": _with("lzma", "LZMADecompressor", memlimit=LZMA_MEMORY),
    b"\x5d\0\0": _with("lzma", "LZMADecompressor", memlimit=LZMA_MEMORY),
    b"\x1f\x8b": _with("zlib", "decompressobj", wbits=31),  # with a gzip header
    b"BZh": _with("bz2", "BZ2Decompressor"),
}

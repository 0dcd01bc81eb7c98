"""The payload of a compiled container: ``struct mc_compiled`` of csrc/compiled/payload.h, with what it refers to."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from minicontainer.native import ffi, lib
from minicontainer.plan.step import os_bytes

TRAILER = struct.Struct("=IIQQ")  # struct mc_trailer
WORD = struct.Struct("=Q")
MASK = 2**64 - 1
LANES = 4  # of the checksum

if TRAILER.size != ffi.sizeof("struct mc_trailer"):
    raise ImportError("minicontainer: payload.py and payload.h disagree about the trailer")


def checksum(data: bytes) -> int:
    """The checksum of payload.c over data of a multiple of 8 bytes."""
    words = [word for (word,) in WORD.iter_unpack(data)]
    together = len(words) // LANES * LANES
    lanes = (_sum(lane, words[lane:together:LANES]) for lane in range(LANES))
    return _sum(_sum(len(data), lanes), words[together:])


def _sum(start: int, words: Iterable[int]) -> int:
    for word in words:
        start = (start ^ word) * lib.MC_CHECKSUM_FACTOR & MASK
        start ^= start >> 32
    return start


def padded(data: bytes) -> bytes:
    """The data, and zeros up to a multiple of 8 bytes."""
    return data + bytes(-len(data) % WORD.size)


class Payload:
    """Collects bytes, strings and structures; ``struct`` is the struct mc_compiled in front of them."""

    def __init__(self) -> None:
        self.struct: Any = ffi.new("struct mc_compiled *")
        self._base = ffi.sizeof("struct mc_compiled")
        self._tail = bytearray()
        self._strings: dict[bytes, int] = {}

    def put(self, data: bytes) -> int:
        """The offset of ``data``, which is aligned to 8 bytes and followed by a NUL."""
        self._tail += bytes(-(self._base + len(self._tail)) % WORD.size)
        offset = self._base + len(self._tail)
        self._tail += data + b"\0"
        return offset

    def string(self, text: str) -> int:
        """The offset of a string; equal strings are stored once."""
        data = os_bytes(text)
        if data not in self._strings:
            self._strings[data] = self.put(data)
        return self._strings[data]

    def span(self, data: bytes) -> tuple[int, int]:
        """Bytes as a struct mc_span."""
        return self.put(data), len(data)

    def list(self, strings: Sequence[str]) -> tuple[int, int]:
        """Consecutive strings as a struct mc_span."""
        return self.put(b"\0".join(map(os_bytes, strings))), len(strings)

    def array(self, kind: str, values: Iterable[Any]) -> tuple[int, int]:
        """Structures or numbers as a struct mc_span: tuples of their fields, or ints."""
        items = list(values)
        array = ffi.new(f"{kind}[]", items)
        return self.put(bytes(ffi.buffer(array))), len(items)

    def file(self, program: bytes) -> bytes:
        """The whole file: the program, the payload, the trailer."""
        size = -(-(self._base + len(self._tail) + 1) // WORD.size) * WORD.size  # ends with a NUL at least
        self.struct.size = size
        payload = bytes(ffi.buffer(self.struct)) + bytes(self._tail)
        body = padded(program) + payload + bytes(size - len(payload))
        trailer = TRAILER.pack(size, lib.MC_COMPILED_VERSION, lib.MC_COMPILED_MAGIC, 0)
        body += trailer[: -WORD.size]
        return body + WORD.pack(checksum(body))


def places(data: bytes, wanted: bytes) -> Iterator[int]:
    """The offsets at which ``wanted`` stands in ``data``."""
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)

"""Frames of the GDB remote serial protocol: ``$data#checksum`` (GDB manual, "Overview" of the protocol). Pure.

A client's bytes become events; replies become bytes. Nothing that a client sends raises anything here.
"""

from __future__ import annotations

import re
from enum import Enum, auto

SIZE_MAX = 0x4000  # bytes between $ and #, before escapes are undone: what PacketSize tells the client
ESCAPED = re.compile(rb"[#$}*]")
ESCAPE = re.compile(rb"\}(.)", re.DOTALL)


class Signal(Enum):
    """What comes beside packets."""

    ACK = auto()
    NAK = auto()  # the last reply is to be sent again
    BROKEN = auto()  # a packet whose checksum is wrong, or that is too long
    INTERRUPT = auto()


SIGNALS = {ord("+"): Signal.ACK, ord("-"): Signal.NAK, 0x03: Signal.INTERRUPT}


class Decoder:
    """Takes a client's bytes as they come."""

    def __init__(self) -> None:
        self._content: bytearray | None = None  # since a $
        self._checksum: bytearray | None = None  # since its #
        self._overlong = False

    def feed(self, data: bytes) -> list[bytes | Signal]:
        """The packets' contents and signals that ``data`` completes."""
        events = (self._outside(b) if self._content is None else self._inside(b, self._content) for b in data)
        return [event for event in events if event is not None]

    def _outside(self, byte: int) -> Signal | None:
        if byte == ord("$"):
            self._begin()
        return SIGNALS.get(byte)

    def _begin(self) -> None:
        self._content, self._checksum, self._overlong = bytearray(), None, False

    def _inside(self, byte: int, content: bytearray) -> bytes | Signal | None:
        if byte == ord("$"):  # never within a packet: the end of the last one was lost
            self._begin()
        elif self._checksum is not None:
            self._checksum.append(byte)
            if len(self._checksum) == 2:
                return self._end(bytes(content), bytes(self._checksum))
        elif byte == ord("#"):
            self._checksum = bytearray()
        elif len(content) < SIZE_MAX:
            content.append(byte)
        else:
            self._overlong = True
        return None

    def _end(self, content: bytes, checksum: bytes) -> bytes | Signal:
        self._content = None
        is_right = not self._overlong and checksum.lower() == b"%02x" % _sum(content)
        return unescape(content) if is_right else Signal.BROKEN


def encode(content: bytes) -> bytes:
    """A reply's frame."""
    escaped = escape(content)
    return b"$%b#%02x" % (escaped, _sum(escaped))


def escape(content: bytes) -> bytes:
    """Bytes as they may stand in a packet: a ``}`` before those that mean something, which are XORed with 0x20."""
    return ESCAPED.sub(lambda found: bytes((ord("}"), found[0][0] ^ 0x20)), content)


def unescape(content: bytes) -> bytes:
    """The other way round."""
    return ESCAPE.sub(lambda found: bytes((found[1][0] ^ 0x20,)), content)


def _sum(content: bytes) -> int:
    return sum(content) & 0xFF

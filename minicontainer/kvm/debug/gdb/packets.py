"""Frames of the GDB remote serial protocol: ``$data#checksum`` (GDB manual, "Overview" of the protocol). Pure.

The decoder turns a client's bytes into events; replies are encoded to bytes. No input raises an exception.
"""

from __future__ import annotations

import re
from enum import Enum, auto

SIZE_MAX = 0x4000  # bytes between $ and #, escapes included: the PacketSize that the client is sent
SPECIAL = re.compile(rb"[#$}*]")
ESCAPE = re.compile(rb"\}(.)", re.DOTALL)


class Signal(Enum):
    """Single bytes outside packets, and broken packets."""

    ACK = auto()
    NAK = auto()  # the client requests the last reply again
    BROKEN = auto()  # a packet with a wrong checksum, or too long
    INTERRUPT = auto()


SIGNALS = {ord("+"): Signal.ACK, ord("-"): Signal.NAK, 0x03: Signal.INTERRUPT}


class Decoder:
    """Decodes the bytes of a client, in pieces of any size."""

    def __init__(self) -> None:
        self._content: bytearray | None = None  # from a $ on
        self._checksum: bytearray | None = None  # from its # on
        self._overlong = False

    def feed(self, data: bytes) -> list[bytes | Signal]:
        """The contents of packets, and the signals, that ``data`` completes."""
        events = (self._outside(b) if self._content is None else self._inside(b, self._content) for b in data)
        return [event for event in events if event is not None]

    def _outside(self, byte: int) -> Signal | None:
        if byte == ord("$"):
            self._start_packet()
        return SIGNALS.get(byte)

    def _start_packet(self) -> None:
        self._content, self._checksum, self._overlong = bytearray(), None, False

    def _inside(self, byte: int, content: bytearray) -> bytes | Signal | None:
        if byte == ord("$"):  # a new packet: the end of the last one was lost
            self._start_packet()
        elif self._checksum is not None:
            self._checksum.append(byte)
            if len(self._checksum) == 2:
                return self._end_packet(bytes(content), bytes(self._checksum))
        elif byte == ord("#"):
            self._checksum = bytearray()
        elif len(content) < SIZE_MAX:
            content.append(byte)
        else:
            self._overlong = True
        return None

    def _end_packet(self, content: bytes, checksum: bytes) -> bytes | Signal:
        self._content = None
        is_right = not self._overlong and checksum.lower() == b"%02x" % _sum(content)
        return unescape(content) if is_right else Signal.BROKEN


def encode(content: bytes) -> bytes:
    """The frame of a reply."""
    escaped = escape(content)
    return b"$%b#%02x" % (escaped, _sum(escaped))


def escape(content: bytes) -> bytes:
    """Escapes special characters: each becomes ``}`` and the character XOR 0x20."""
    return SPECIAL.sub(lambda match: bytes((ord("}"), match[0][0] ^ 0x20)), content)


def unescape(content: bytes) -> bytes:
    """Undoes ``escape``."""
    return ESCAPE.sub(lambda match: bytes((match[1][0] ^ 0x20,)), content)


def _sum(content: bytes) -> int:
    return sum(content) & 0xFF

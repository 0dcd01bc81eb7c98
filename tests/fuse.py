"""Talks to the FUSE server of csrc/virtio/fs itself, without a kernel: tests/unit/fuzz_fs.c, compiled and run in mount
and user namespaces of its own, where nothing can be written to but a tmpfs with the directory of the server."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from fileserver import ROOT, compile_server, finish

HEADER = Path("/usr/include/linux/fuse.h").read_text(encoding="utf-8")
OPCODES = {name: int(number) for name, number in re.findall(r"^\tFUSE_(\w+)\t+= (\d+),", HEADER, re.MULTILINE)}
_BITS = re.findall(r"^#define (FUSE_\w+|FATTR_\w+)\s+\(1 << (\d+)\)", HEADER, re.MULTILINE)
FLAGS = {flag: 1 << int(bit) for flag, bit in _BITS}
ROOT_ID, ROOM = 1, 1 << 16
REQUEST, REPLY = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ENTRY, ATTRIBUTES = struct.Struct("<QQQQII"), struct.Struct("<QQQQQQIIIIIIIIII")
INIT, SETATTR = struct.Struct("<IIIII44x"), struct.Struct("<I4xQQQQQQIIIIIIII")
IO = struct.Struct("<QQIIQI4x")  # fuse_read_in, fuse_write_in


def compile_program(directory: Path) -> Path:
    return compile_server(ROOT / "tests/unit/fuzz_fs.c", directory / "fuzz_fs")


class Reply(NamedTuple):
    """An error's number, or 0; and what follows the header."""

    error: int
    data: bytes


def request(opcode: int | str, node: int, data: bytes = b"", *, uid: int = 0, gid: int = 0, unique: int = 7) -> bytes:
    number = OPCODES[opcode] if isinstance(opcode, str) else opcode
    return REQUEST.pack(REQUEST.size + len(data), number, unique, node, uid, gid, 1, 0, 0) + data


class Client:
    """One server; ``root`` is its directory and ``beside`` another one on the same file system. ``before`` is a shell
    command in the directory of both."""

    def __init__(self, program: Path, place: Path, before: str = ":") -> None:
        self._process = subprocess.Popen([program, place, before], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.send(b"") is not None  # it runs by now
        there = Path(f"/proc/{self._process.pid}/root{place}")
        self.root, self.beside = there / "root", there / "beside"

    def send(self, data: bytes, room: int = ROOM) -> bytes:
        """The whole reply; b"" if there is none."""
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack("=II", len(data), room) + data)
        self._process.stdin.flush()
        (length,) = struct.unpack("=I", self._read(4))
        return self._read(length)

    def _read(self, size: int) -> bytes:
        """At most a minute: the server must not block."""
        assert self._process.stdout is not None
        fd, found = self._process.stdout.fileno(), b""
        while len(found) < size:
            assert select.select([fd], [], [], 60)[0], "the server blocks"
            more = os.read(fd, size - len(found))
            assert more, "the server has ended: see the sanitizers' report"
            found += more
        return found

    def call(self, opcode: int | str, node: int = ROOT_ID, data: bytes = b"", room: int = ROOM, uid: int = 0) -> Reply:
        """A request that has a reply."""
        reply = self.send(request(opcode, node, data, uid=uid, gid=uid), room)
        length, error, unique = REPLY.unpack_from(reply)
        assert (length, unique) == (len(reply), 7)
        return Reply(-error, reply[REPLY.size :])

    def start(self, flags: int = 0xFFFFFFFF) -> None:
        """FUSE_INIT, with everything that the server can."""
        assert self.call("INIT", 0, INIT.pack(7, 38, 1 << 20, flags, 0)).error == 0

    def lookup(self, name: str, node: int = ROOT_ID) -> int:
        """The node of a name."""
        reply = self.call("LOOKUP", node, name.encode() + b"\0")
        assert reply.error == 0, os.strerror(reply.error)
        return int(ENTRY.unpack_from(reply.data)[0])

    def open(self, node: int, flags: int = os.O_RDONLY, opcode: str = "OPEN") -> int:
        """The handle of an open file."""
        reply = self.call(opcode, node, struct.pack("<II", flags, 0))
        assert reply.error == 0, os.strerror(reply.error)
        return int(struct.unpack_from("<Q", reply.data)[0])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        finish(self._process, error)

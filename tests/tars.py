"""Tar archives made byte by byte, also invalid ones; and snapshots of directory trees for comparison."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
END = bytes(1024)


def number(value: int, width: int) -> bytes:
    """A numeric field: octal if it fits, else in base 256 (GNU)."""
    if 0 <= value < 1 << 3 * (width - 1):
        return b"%s\0" % oct(value)[2:].zfill(width - 1).encode()
    high = b"\x80" if value >= 0 else b"\xff"
    return high + (value & ((1 << 8 * (width - 1)) - 1)).to_bytes(width - 1, "big")


def entry(
    name: bytes,
    kind: bytes = FILE,
    data: bytes = b"",
    *,
    link: bytes = b"",
    size: int | None = None,
    mode: int | None = None,
    owner: tuple[int, int] = (0, 0),
    mtime: int = 0,
    device: tuple[int, int] = (0, 0),
    sparse: bytes = b"",
) -> bytes:
    """A header (ustar; with ``sparse``, the old GNU kind) and the data, padded."""
    permissions = mode if mode is not None else 0o755 if kind == DIRECTORY else 0o644
    head = name.ljust(100, b"\0") + number(permissions, 8) + number(owner[0], 8) + number(owner[1], 8)
    head += number(len(data) if size is None else size, 12) + number(mtime, 12) + b" " * 8 + kind
    head += link.ljust(100, b"\0") + (b"ustar  \0" if sparse else b"ustar\00000") + bytes(64)
    head += number(device[0], 8) + number(device[1], 8)
    head = head.ljust(386 if sparse else 345, b"\0") + sparse
    head = head.ljust(512, b"\0")
    assert len(head) == 512, "a field is too long"
    head = head[:148] + b"%06o\0 " % sum(head) + head[156:]
    return head + data + bytes(-len(data) % 512)


def pax(records: dict[bytes, bytes], kind: bytes = PAX) -> bytes:
    """An extended header of the next member."""
    return entry(b"PaxHeaders/x", kind, b"".join(_record(k, v) for k, v in records.items()))


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def whole(*entries: bytes) -> bytes:
    return b"".join(entries) + END


def snapshot(top: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """The state of a tree: names, kinds, modes, owners, times, contents, hard links, attributes."""
    seen: dict[int, str] = {}
    found: dict[str, tuple[object, ...]] = {}
    below = (Path(where, name) for where, *names in os.walk(top) for name in itertools.chain(*names))
    for path in [top, *sorted(below)]:
        at = os.lstat(path)
        name = str(path.relative_to(top))
        held: object = None
        if stat.S_ISLNK(at.st_mode):
            held = os.readlink(path)
        elif stat.S_ISREG(at.st_mode):
            held = path.read_bytes()
        attributes = {} if stat.S_ISLNK(at.st_mode) else {k: os.getxattr(path, k) for k in os.listxattr(path)}
        same = seen.setdefault(at.st_ino, name)
        moment = at.st_mtime_ns if times else 0
        found[name] = (oct(at.st_mode), at.st_uid, at.st_gid, at.st_rdev, moment, held, same, attributes)
    return found

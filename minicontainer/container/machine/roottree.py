"""What an image of ROOTFS is made of, without reading a file: a stamp by which it is found again, and its size."""

from __future__ import annotations

import os
import stat

from minicontainer.errors import SpecError, quote
from minicontainer.microvm import stamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

BLOCK = 4096
INLINE = 60  # bytes of a link's target that its inode holds (ext4)


class Tree(NamedTuple):
    """``stamp``: a digest of each path with what lstat(2) says of it: type, mode, owner, size, device number, device
    and inode, and the times of the last change of content and of anything else (st_mtime, st_ctime), in nanoseconds.
    Whatever changes a file changes its st_ctime, which no program can set.

    ``files``: of all types; ``blocks``: of BLOCK bytes, for their content; ``owners``: (user id, group id) -> the
    path of one of its files."""

    stamp: str
    files: int
    blocks: int
    owners: dict[tuple[int, int], str]


def look(rootfs: str) -> Tree:
    """Looks at every file below ROOTFS. SpecError: one of its directories cannot be read, or another file system is
    mounted on it."""
    lines, blocks = [], 0
    owners: dict[tuple[int, int], str] = {}
    for path, info in _walk(rootfs):
        lines.append(
            f"{info.st_mode} {info.st_uid} {info.st_gid} {info.st_size} {info.st_rdev} {info.st_dev} {info.st_ino}"
            f" {info.st_mtime_ns} {info.st_ctime_ns} {path}"
        )
        owners.setdefault((info.st_uid, info.st_gid), path)
        blocks += _blocks(info, path)
    return Tree(stamps.digest(stamps.encoded("\0".join(lines))), len(lines), blocks, owners)


def _blocks(info: os.stat_result, path: str) -> int:
    if stat.S_ISREG(info.st_mode) or (stat.S_ISLNK(info.st_mode) and info.st_size > INLINE):
        content = -(-info.st_size // BLOCK)
        return content + content // 256  # the extent tree of a file in many pieces
    entry = 8 + len(path.rpartition("/")[2])  # of the directory that it is in; names may be any bytes
    return int(stat.S_ISDIR(info.st_mode)) + entry // BLOCK


def _walk(rootfs: str) -> Iterator[tuple[str, os.stat_result]]:
    """ROOTFS and all below it, in the order of their names."""
    root = os.stat(rootfs)
    yield "", root
    waiting = [""]
    while waiting:
        above = waiting.pop()
        for name, info in _entries(rootfs, above):
            path = f"{above}/{name}"
            yield path, info
            if stat.S_ISDIR(info.st_mode):
                if info.st_dev != root.st_dev:
                    reason = f"another file system is mounted in it at {quote(path)}, and its image is of one"
                    raise SpecError("rootfs", rootfs, reason, "umount it, and make it a volume")
                waiting.append(path)


def _entries(rootfs: str, path: str) -> list[tuple[str, os.stat_result]]:
    try:
        with os.scandir(f"{rootfs}{path}") as entries:
            return sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
    except OSError as e:
        raise SpecError("rootfs", f"{rootfs}{path}", (e.strerror or str(e)).lower(), "an image has all of it") from None

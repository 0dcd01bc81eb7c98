"""The contents of a file, from one descriptor to another: by the kernel, hole by hole, never whole in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

CHUNK = 64 << 20  # bytes at once: between two, a signal is heard
FIRST: Callable[[int, int, int, int, int], int] = os.copy_file_range
ELSEWHERE = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}  # copy_file_range(2) is not for these two


def copy_data(source: int, target: int, size: int) -> None:
    """Copies the first ``size`` bytes, and no more, however much the file grows meanwhile; holes stay holes."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(source, end, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            break  # a hole to the end
        end = min(os.lseek(source, begin, os.SEEK_HOLE), size)
        if begin < end and _move(source, target, begin, end) < end:
            break  # it has been cut meanwhile
    os.ftruncate(target, size)


def _move(source: int, target: int, begin: int, end: int) -> int:
    """Copies what lies between; how far there was something."""
    at, move = begin, FIRST
    while at < end:
        try:
            count = move(source, target, min(end - at, CHUNK), at, at)
        except OSError as e:
            if move is not FIRST or e.errno not in ELSEWHERE:
                raise
            move, count = _send, -1
        if count == 0:
            return at
        at += max(count, 0)
    return at


def _send(source: int, target: int, count: int, from_: int, to: int) -> int:
    os.lseek(target, to, os.SEEK_SET)
    return os.sendfile(target, source, from_, count)

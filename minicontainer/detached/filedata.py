"""Copies the contents of a file between descriptors in the kernel; holes are preserved."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 64 << 20  # bytes of one call: signals are handled between calls
COPY: Callable[[int, int, int, int, int], int] = os.copy_file_range
# Errors of copy_file_range(2) where it does not support these two files.
FALLBACK_ERRNOS = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


def copy_data(source: int, target: int, size: int) -> None:
    """Copies the first ``size`` bytes, even if the file grows meanwhile; holes are preserved."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            break  # a hole to the end
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        if start < end and _copy(source, target, start, end) < end:
            break  # it was truncated meanwhile
    os.ftruncate(target, size)


def _copy(source: int, target: int, start: int, end: int) -> int:
    """Copies the bytes from ``start`` to ``end``; returns the offset that was reached, which is less than ``end`` if
    the file ends before."""
    at, move = start, COPY
    while at < end:
        try:
            count = move(source, target, min(end - at, CHUNK), at, at)
        except OSError as e:
            if move is not COPY or e.errno not in FALLBACK_ERRNOS:
                raise
            move, count = _send, -1
        if count == 0:
            return at
        at += max(count, 0)
    return at


def _send(source: int, target: int, count: int, from_: int, to: int) -> int:
    os.lseek(target, to, os.SEEK_SET)
    return os.sendfile(target, source, from_, count)

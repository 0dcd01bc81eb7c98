"""The memfd that the monitor and the helper ``enter`` map (csrc/monitor/shared.h): a header, and the data that the
header's offsets name."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Any

from minicontainer.errors import StepError
from minicontainer.native import ffi
from minicontainer.plan import Plan
from minicontainer.plan.spawn import Spawn

RECORD, POINTER, SLOT = ffi.sizeof("struct mc_record"), ffi.sizeof("void *"), 4


class Layout:
    """The layout of the memfd: each part follows the last one, at a multiple of 8 bytes."""

    def __init__(self, header: str) -> None:
        """``header``: the type of the header, as ``struct mc_monitor``."""
        self.size = ffi.sizeof(header)
        self.parts: list[tuple[int, bytes]] = []

    def room(self, size: int) -> int:
        """The offset of ``size`` bytes of zeros."""
        offset, self.size = self.size, self.size + -(-size // 8) * 8
        return offset

    def put(self, data: bytes) -> int:
        """The offset of ``data``."""
        offset = self.room(len(data))
        self.parts.append((offset, data))
        return offset

    def text(self, text: str) -> int:
        """The offset of a string."""
        return self.put(os.fsencode(text) + b"\0")

    def walk(self, parts: Any, plan: Plan, slots: list[int]) -> None:
        """Puts all that one run of ``plan`` takes (struct mc_run_offsets); ``slots``: what they hold before the run."""
        parts.plan = self.put(plan.buffer)
        parts.initial_slots = self.put(bytes(ffi.buffer(ffi.new("int32_t[]", slots or [-1]))))
        parts.records, parts.slots = self.room(RECORD * len(plan.encoded().ops)), self.room(SLOT * max(1, len(slots)))
        parts.strings = self.room(POINTER * max(1, plan.nstrings))


def dup_above(fd: int, first: int) -> int:
    """A duplicate of ``fd`` whose number is at least ``first``, above the numbers that dup3(2) will replace."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first)
    except OSError as e:  # EINVAL where ``first`` is no number that this process can have
        raise StepError(errno.EMFILE if e.errno == errno.EINVAL else e.errno or 0, f"dup({fd})") from None


def map_shared(memfd: int, header: Any, layout: Layout) -> mmap.mmap:
    """Fills the memfd; the mapping that is shared with the other process."""
    os.ftruncate(memfd, layout.size)
    shared = mmap.mmap(memfd, layout.size)
    data = bytes(ffi.buffer(header))
    shared[: len(data)] = data
    for offset, data in layout.parts:
        shared[offset : offset + len(data)] = data
    return shared


def copy_result(spawn: Spawn, view: memoryview, offset: int) -> None:
    """Takes over the records at ``offset`` after a walk by another process. The pointers of its struct mc_run are valid
    in that process alone."""
    run = spawn.struct.run
    run.plan = run.slots = run.strings = ffi.NULL
    run.records = spawn.records
    copy_records(spawn.records, view, offset)


def copy_records(records: Any, view: memoryview, offset: int) -> None:
    """Fills ``records`` from ``offset``."""
    size = ffi.sizeof(records)
    ffi.memmove(records, view[offset : offset + size], size)

"""What programs of ours that walk plans are told (csrc/monitor/shared.h): a header and what it points at, in a
memfd."""

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
    """Where things lie in the memfd: each is put behind the last, at a multiple of 8."""

    def __init__(self, header: str) -> None:
        """``header`` is what it begins with, as ``struct mc_monitor``."""
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
        """What one run of ``plan`` takes (struct mc_run_offsets): ``slots`` are those that are filled before it."""
        parts.plan = self.put(plan.buffer)
        parts.initial_slots = self.put(bytes(ffi.buffer(ffi.new("int32_t[]", slots or [-1]))))
        parts.records, parts.slots = self.room(RECORD * len(plan.encoded().ops)), self.room(SLOT * max(1, len(slots)))
        parts.strings = self.room(POINTER * max(1, plan.nstrings))


def sheltered(fd: int, first: int) -> int:
    """A copy from ``first`` on, the number after those whose places it and others are to take (dup3(2))."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first)
    except OSError as e:  # EINVAL where ``first`` is no number that this process can have
        raise StepError(errno.EMFILE if e.errno == errno.EINVAL else e.errno or 0, f"dup({fd})") from None


def written(memfd: int, header: Any, layout: Layout) -> mmap.mmap:
    """The memfd, filled, as it is shared with who is told."""
    os.ftruncate(memfd, layout.size)
    told = mmap.mmap(memfd, layout.size)
    data = bytes(ffi.buffer(header))
    told[: len(data)] = data
    for offset, data in layout.parts:
        told[offset : offset + len(data)] = data
    return told


def take_back(spawn: Spawn, view: memoryview, offset: int) -> None:
    """What another's walk left: the records at ``offset``; what its struct mc_run pointed at was the other's."""
    run = spawn.struct.run
    run.plan = run.slots = run.strings = ffi.NULL
    run.records = spawn.records
    copy_records(spawn.records, view, offset)


def copy_records(records: Any, view: memoryview, offset: int) -> None:
    """``records`` of those at ``offset``."""
    size = ffi.sizeof(records)
    ffi.memmove(records, view[offset : offset + size], size)

"""The memfd that the monitor and the helper ``enter`` map (csrc/monitor/shared.h): a header, and data at the
offsets that the header contains."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from minicontainer.errors import StepError
from minicontainer.native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.plan import Plan
    from minicontainer.plan.spawn import ParentRun, Spawn

RECORD, POINTER, SLOT = ffi.sizeof("struct mc_record"), ffi.sizeof("void *"), 4


class Layout:
    """The layout of the memfd: each part follows the last one, at a multiple of 8 bytes."""

    def __init__(self, header: str) -> None:
        """``header``: the type of the header, as ``struct mc_monitor``."""
        self.size = ffi.sizeof(header)
        self.parts: list[tuple[int, bytes]] = []

    def room(self, size: int) -> int:
        """Adds ``size`` bytes of zeros; returns their offset."""
        offset, self.size = self.size, self.size + -(-size // 8) * 8
        return offset

    def put(self, data: bytes) -> int:
        """Adds ``data``; returns its offset."""
        offset = self.room(len(data))
        self.parts.append((offset, data))
        return offset

    def text(self, text: str) -> int:
        """Adds a string, ended by a NUL byte; returns its offset."""
        return self.put(os.fsencode(text) + b"\0")

    def walk(self, parts: Any, plan: Plan, slots: list[int]) -> None:
        """Adds the parts that a run of ``plan`` needs (struct mc_run_offsets). ``slots``: their values before the
        run."""
        parts.plan = self.put(plan.buffer)
        parts.initial_slots = self.put(bytes(ffi.buffer(ffi.new("int32_t[]", slots or [-1]))))
        parts.records, parts.slots = self.room(RECORD * len(plan.encoded().ops)), self.room(SLOT * max(1, len(slots)))
        parts.strings = self.room(POINTER * max(1, plan.nstrings))


def dup_above(fd: int, first: int) -> int:
    """A duplicate of ``fd`` whose number is at least ``first``, above the numbers that dup3(2) will replace."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first)
    except OSError as e:  # EINVAL: ``first`` exceeds the limit of descriptors
        raise StepError(errno.EMFILE if e.errno == errno.EINVAL else e.errno or 0, f"dup({fd})") from None


def map_shared(memfd: int, header: Any, layout: Layout) -> mmap.mmap:
    """Fills the memfd; returns a mapping, which is shared with the other process."""
    os.ftruncate(memfd, layout.size)
    shared = mmap.mmap(memfd, layout.size)
    data = bytes(ffi.buffer(header))
    shared[: len(data)] = data
    for offset, data in layout.parts:
        shared[offset : offset + len(data)] = data
    return shared


def copy_result(spawn: Spawn, view: memoryview, offset: int) -> None:
    """Copies the records at ``offset`` to ``spawn`` after a walk by another process. The pointers of its struct mc_run
    are valid in that process alone."""
    run = spawn.struct.run
    run.plan = run.slots = run.strings = ffi.NULL
    run.records = spawn.records
    copy_records(spawn, view, offset)


def copy_records(run: Spawn | ParentRun, view: memoryview, offset: int) -> None:
    """Fills the records of ``run`` from ``offset``."""
    size = RECORD * len(run.plan.encoded().ops)
    ffi.memmove(run.records, view[offset : offset + size], size)

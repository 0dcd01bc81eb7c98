"""The resource usage of a cgroup, which C reads and parses (csrc/start/measure.c), as values."""

from __future__ import annotations

from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any, TypedDict
else:
    from minicontainer.records import TypedDict

FILES = (  # number in C, name, controller
    (lib.MC_CPU_STAT, "cpu.stat", ""),
    (lib.MC_IO_STAT, "io.stat", "io"),
    (lib.MC_MEMORY_PEAK, "memory.peak", "memory"),
    (lib.MC_PIDS_PEAK, "pids.peak", "pids"),
    (lib.MC_CPU_PRESSURE, "cpu.pressure", ""),
    (lib.MC_MEMORY_PRESSURE, "memory.pressure", ""),
    (lib.MC_IO_PRESSURE, "io.pressure", ""),
)
PRESSURE = 1 << lib.MC_CPU_PRESSURE | 1 << lib.MC_MEMORY_PRESSURE | 1 << lib.MC_IO_PRESSURE
OPTIONAL = tuple((1 << number, controller) for number, _, controller in FILES if controller)


class Usage(TypedDict):
    """Resource usage of a cgroup since its creation: seconds and bytes; None if this host does not account it.

    ``io_read`` and ``io_write`` sum over devices, so stacked devices (dm on a disk) count twice. ``pressure_*_some``
    is the time for which at least one task was stalled.
    """

    cputime: float | None
    cputime_user: float | None
    cputime_system: float | None
    memory_peak: int | None
    pids_peak: int | None
    io_read: int | None
    io_write: int | None
    pressure_cpu_some: float | None
    pressure_memory_some: float | None
    pressure_io_some: float | None


def files_of(controllers: Container[str], *, pressure: bool) -> int:
    """The files that a cgroup with these controllers has, as bits."""
    files: int = 1 << lib.MC_CPU_STAT | (PRESSURE if pressure else 0)
    for bit, controller in OPTIONAL:
        if controller in controllers:
            files |= bit
    return files


def as_usage(used: Any) -> Usage:
    """The usage of a struct mc_usage."""
    numbers = ffi.unpack(ffi.cast("int64_t *", used), 10)  # the times come first
    total, user, system, cpu_stall, memory_stall, io_stall = [None if n < 0 else n / 1e6 for n in numbers[:6]]
    memory_peak, pids_peak, read, written = [None if n < 0 else n for n in numbers[6:]]
    return {
        "cputime": total,
        "cputime_user": user,
        "cputime_system": system,
        "memory_peak": memory_peak,
        "pids_peak": pids_peak,
        "io_read": read,
        "io_write": written,
        "pressure_cpu_some": cpu_stall,
        "pressure_memory_some": memory_stall,
        "pressure_io_some": io_stall,
    }

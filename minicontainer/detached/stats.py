"""The resources that a running container uses (``Stats``), and its processes (``Task``)."""

from __future__ import annotations

import os
import time

from minicontainer.errors import StepError
from minicontainer.linux import processes
from minicontainer.linux.processes import TICKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.linux.cgroup import Cgroup
else:
    from minicontainer.records import NamedTuple


class Stats(NamedTuple):
    """Seconds and bytes; None: unknown (this host does not provide it), or no limit.

    time       the time of the measurement (CLOCK_MONOTONIC)
    cputime    CPU time since the start
    memory     memory of the cgroup; without the memory controller, the sum of the processes' PSS
    pids       processes and threads with the pids controller, else processes
    io_read, io_write   bytes since the start
    pressure_*   percent of the last 10 seconds in which some process was stalled (pressure stall information)
    """

    time: float
    cputime: float | None
    memory: int | None
    memory_max: int | None
    pids: int
    pids_max: int | None
    io_read: int | None
    io_write: int | None
    pressure_cpu: float | None
    pressure_memory: float | None
    pressure_io: float | None

    def cpu_percent(self, before: Stats) -> float | None:
        """Percent of one CPU, since another measurement."""
        if self.cputime is None or before.cputime is None or self.time <= before.time:
            return None
        return 100 * (self.cputime - before.cputime) / (self.time - before.time)


def measure(cgroup: Cgroup | None, pids: list[int]) -> Stats:
    """Measures a cgroup, if there is one, and its processes. StepError (ENODEV, ENOENT) if the cgroup was removed."""
    now, own = time.monotonic(), processes.used(pids)
    if cgroup is None:
        nothing = dict.fromkeys(("memory_max", "pids_max", "pressure_cpu", "pressure_memory", "pressure_io"))
        return Stats(now, own.cputime, own.memory, pids=len(pids), io_read=own.read, io_write=own.written, **nothing)
    used = cgroup.usage(pressure=False)
    has = cgroup.controllers
    return Stats(
        time=now,
        cputime=used["cputime"],
        memory=int(cgroup.read("memory.current")) if "memory" in has else own.memory,
        memory_max=cgroup.memory_max if "memory" in has else None,
        pids=int(cgroup.read("pids.current")) if "pids" in has else len(pids),
        pids_max=cgroup.pids_max if "pids" in has else None,
        io_read=own.read if used["io_read"] is None else used["io_read"],
        io_write=own.written if used["io_write"] is None else used["io_write"],
        pressure_cpu=_pressure(cgroup, "cpu"),
        pressure_memory=_pressure(cgroup, "memory"),
        pressure_io=_pressure(cgroup, "io"),
    )


def _pressure(cgroup: Cgroup, resource: str) -> float | None:
    try:
        return cgroup.pressure(resource)["some"].avg10
    except (StepError, KeyError):
        return None  # psi=0


class Task(NamedTuple):
    """A process. ``pid`` in the host's pid namespace, ``inner`` in the container's; ``uid`` in the container (the
    host's if it is not mapped); ``rss`` in bytes, ``cputime`` in seconds, ``started`` in seconds since boot."""

    pid: int
    inner: int
    ppid: int
    uid: int
    state: str
    rss: int
    cputime: float
    started: float
    command: str


def tasks(pids: list[int]) -> list[Task]:
    """The processes that still exist, by pid."""
    return [task for task in map(_task, sorted(pids)) if task is not None]


def _task(pid: int) -> Task | None:
    try:
        status = _status(pid)
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()  # from field 3 of proc(5) on
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            command = os.fsdecode(f.read().rstrip(b"\0").replace(b"\0", b" "))
        uid = _to_container(pid, int(status["Uid"].split()[0]))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Task(
        pid=pid,
        inner=int(status.get("NSpid", str(pid)).split()[-1]),
        ppid=int(fields[1]),
        uid=uid,
        state=fields[0].decode(),
        rss=int(status.get("VmRSS", "0 kB").split()[0]) * 1024,
        cputime=(int(fields[11]) + int(fields[12])) / TICKS,
        started=int(fields[19]) / TICKS,
        command=command or f"[{status['Name']}]",
    )


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def _to_container(pid: int, uid: int) -> int:
    """A uid of the host as the process's user namespace maps it."""
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as f:
        for line in f:
            first, outside, count = map(int, line.split())
            if outside <= uid < outside + count:
                return first + uid - outside
    return uid

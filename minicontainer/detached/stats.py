"""What a running container uses now (``Stats``), and which processes it has (``Task``)."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from minicontainer.errors import StepError
from minicontainer.linux import processes
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.processes import TICKS


class Stats(NamedTuple):
    """Seconds and bytes; None is unknown (this host does not tell, or there is no limit).

    time       when it was measured (CLOCK_MONOTONIC)
    cputime    until now
    memory     that of the cgroup; without the memory controller, that of its processes, what they share by share (PSS)
    pids       processes and threads where the pids controller is there, else processes
    io_read, io_write   until now
    pressure_*   percent of the last 10 seconds in which some process waited for that (pressure stall information)
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
        """Of one CPU, since another measurement."""
        if self.cputime is None or before.cputime is None or self.time <= before.time:
            return None
        return 100 * (self.cputime - before.cputime) / (self.time - before.time)


def measure(cgroup: Cgroup | None, pids: list[int]) -> Stats:
    """Of a cgroup, where there is one, and of its processes. StepError (ENODEV, ENOENT) where the cgroup has gone."""
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
    """A process. ``pid`` as the host counts, ``inner`` as the container does; ``uid`` inside (its own number where that
    is not mapped); ``rss`` in bytes, ``cputime`` in seconds, ``started`` in seconds since boot."""

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
    """Those that are still there, by pid."""
    return [found for found in map(_task, sorted(pids)) if found is not None]


def _task(pid: int) -> Task | None:
    try:
        status = _status(pid)
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()  # from field 3 of proc(5) on
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = os.fsdecode(f.read().rstrip(b"\0").replace(b"\0", b" "))
        uid = _inside(pid, int(status["Uid"].split()[0]))
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
        command=words or f"[{status['Name']}]",
    )


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def _inside(pid: int, uid: int) -> int:
    """An id of ours as the process's user namespace has it."""
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as f:
        for line in f:
            first, outside, count = map(int, line.split())
            if outside <= uid < outside + count:
                return first + uid - outside
    return uid

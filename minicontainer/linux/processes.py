"""Parents, namespaces and resource usage of processes, from /proc (proc(5))."""

from __future__ import annotations

import os

from minicontainer.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
GONE = (FileNotFoundError, ProcessLookupError)  # the latter if the process ends between open and read


def check_proc() -> None:
    """UnsupportedError if /proc belongs to another pid namespace, as after ``unshare --pid --fork``
    (pid_namespaces(7)): the pids in it name other processes, whose id maps would be written."""
    try:
        own = os.readlink("/proc/self")
    except OSError:
        raise UnsupportedError("/proc", None, "is not mounted", "mount -t proc proc /proc") from None
    if own != str(os.getpid()):
        hint = "mount -t proc proc /proc, as unshare --mount-proc does"
        raise UnsupportedError("/proc", None, "is that of another pid namespace", hint)


class Used(NamedTuple):
    """CPU seconds and bytes used by processes and their reaped children; None: no permission to read."""

    cputime: float
    memory: int | None
    read: int | None
    written: int | None


def parents() -> dict[int, int]:
    """Pid -> parent's pid of each visible process; 0 for a parent outside the pid namespace."""
    return {int(name): fields[0] for name in os.listdir("/proc") if name.isdigit() and (fields := _numbers(name))}


def namespace(pid: int | str, kind: str) -> str:
    """A process's namespace, as ``pid:[4026531836]``; "" without permission to read it."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except (*GONE, PermissionError):
        return ""


def used(pids: Iterable[int]) -> Used:
    """The usage of processes: CPU time, resident memory (proportional set size), bytes read from and written to
    storage."""
    ticks, memory, read, written = 0, [], [], []
    for pid in pids:
        if not (numbers := _numbers(pid)):
            continue  # the process has ended
        ticks += sum(numbers[10:14])  # utime, stime, cutime, cstime
        memory.append(_value(pid, "smaps_rollup", "Pss:", 1024))
        read.append(_value(pid, "io", "read_bytes:"))
        written.append(_value(pid, "io", "write_bytes:"))
    return Used(ticks / TICKS, _sum(memory), _sum(read), _sum(written))


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _numbers(pid: int | str) -> list[int]:
    """The fields of /proc/PID/stat from ppid on; [] if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return [int(field) for field in f.read().rpartition(b")")[2].split()[1:]]
    except GONE:
        return []


def _value(pid: int, file: str, key: str, unit: int = 1) -> int | None:
    """One value of a /proc file; 0 for a process that has ended or is a zombie; None without permission."""
    try:
        with open(f"/proc/{pid}/{file}", encoding="utf-8", errors="replace") as f:
            return next((int(line.split()[1]) * unit for line in f if line.startswith(key)), 0)
    except GONE:
        return 0
    except OSError:
        return None

"""Waits until a cgroup is frozen, also one with a kernel thread in it.

The kernel freezes no kernel thread, so a cgroup that has one is never reported as frozen (cgroup.events). KVM has one
for each virtual machine, in its creator's cgroup, until Linux 6.13. All others are frozen if none of them runs: the
write to cgroup.freeze has woken each thread, and one that waits again, waits frozen.
"""

from __future__ import annotations

import os
import time

from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroupkill import all_processes

PF_KTHREAD = 0x00200000  # include/linux/sched.h
FROZEN = b"frozen 1\n"
PATIENCE, INTERVAL = 0.2, 0.01  # seconds


def wait(fd: int, timeout: float) -> bool:
    """Whether the cgroup, to whose cgroup.freeze 1 was written, is frozen within ``timeout`` seconds."""
    if cgroupfs.wait(fd, FROZEN, min(timeout, PATIENCE)):
        return True
    end = time.monotonic() + timeout - PATIENCE
    while _has_kernel_threads(fd) and time.monotonic() < end:
        if not _runs(fd):
            return True
        time.sleep(INTERVAL)
    return cgroupfs.wait(fd, FROZEN, max(0.0, end - time.monotonic()))


def _has_kernel_threads(fd: int) -> bool:
    return any(_is_kernel_thread(pid) for pid in all_processes(fd))


def _runs(fd: int) -> bool:
    """Whether a thread that can be frozen runs, or is in an uninterruptible call."""
    for pid in all_processes(fd):
        if pid and not _is_kernel_thread(pid):
            for thread in _threads(pid):
                if _fields(f"{pid}/task/{thread}")[:1] in ([b"R"], [b"D"]):
                    return True
    return False


def _is_kernel_thread(pid: int) -> bool:
    fields = _fields(str(pid))
    return len(fields) > 6 and int(fields[6]) & PF_KTHREAD != 0


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _fields(path: str) -> list[bytes]:
    """Those of /proc/PATH/stat from the state on (proc(5)); none where it has ended."""
    try:
        with open(f"/proc/{path}/stat", "rb") as f:
            data = f.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return data[data.rindex(b")") + 2 :].split()

"""SIGKILL to all processes of a cgroup and its descendants.

Theory of operation. One write to cgroup.kill kills all processes, including those that fork meanwhile (Linux 5.14,
commit 661ee6280931). But the kernel signals main threads (__cgroup_kill, send_sig), so a process whose main thread has
exited survives while another of its threads runs (Linux 6.1 and 6.18), however often cgroup.kill is written.
cgroup.procs still lists such a process, and a signal by its pidfd kills it. Because a pid may be reused after it was
read, the pidfd is opened first, and used only if the cgroup lists the pid after that.
"""

from __future__ import annotations

import errno
import os

from minicontainer.linux import cgroupfs
from minicontainer.native import lib

AT_ONCE = 64  # pidfds that are open together
FLAGS = os.O_RDONLY | os.O_CLOEXEC


def kill_all(fd: int) -> bool:
    """Write to ``cgroup.kill``. False if the file does not exist (before Linux 5.14). OSError for another failure."""
    result: int = lib.mc_write_at(fd, b"cgroup.kill", b"1", 1)
    if result < 0 and result != -errno.ENOENT:
        raise OSError(-result, os.strerror(-result))
    return result >= 0


def kill_listed(fd: int) -> None:
    """Send SIGKILL to each process listed in the cgroup or its descendants, except those that the caller may not signal
    and those of another pid namespace."""
    for directory in cgroupfs.walk(fd):
        pids = list(_numbers(directory))
        for first in range(0, len(pids), AT_ONCE):
            _kill(directory, pids[first : first + AT_ONCE])


def all_processes(fd: int) -> list[int]:
    """The pids in the cgroup and its descendants; 0 for a process of another pid namespace."""
    return [pid for directory in cgroupfs.walk(fd) for pid in _numbers(directory, hidden=True)]


def _kill(directory: int, pids: list[int]) -> None:
    opened: dict[int, int] = {}
    try:
        for pid in pids:
            pidfd: int = lib.mc_syscall(lib.SYS_pidfd_open, pid, 0, 0, 0, 0, 0)
            if pidfd >= 0:
                opened[pid] = pidfd
        for pid in opened.keys() & _numbers(directory):
            lib.mc_syscall(lib.SYS_pidfd_send_signal, opened[pid], 9, 0, 0, 0, 0)
    finally:
        for pidfd in opened.values():
            os.close(pidfd)


def _numbers(directory: int, *, hidden: bool = False) -> set[int]:
    """The pids in cgroup.procs; none for a threaded cgroup (EOPNOTSUPP), whose processes are listed above it, or for a
    removed one."""
    parts = []
    try:
        with open(
            "cgroup.procs", "rb", buffering=0, opener=lambda name, _: os.open(name, FLAGS, dir_fd=directory)
        ) as f:
            while part := f.read(16384):
                parts.append(part)
    except OSError as e:
        if e.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.ENODEV):
            raise
    return {pid for pid in map(int, b"".join(parts).split()) if pid or hidden}


def describe_processes(fd: int) -> str:
    """A sentence that lists the processes in the cgroup."""
    pids = sorted(all_processes(fd))
    shown = " ".join(str(pid) if pid else "one of another pid namespace" for pid in pids[:5])
    return f"processes are still in it: {shown}{' ...' if len(pids) > 5 else ''}"

"""SIGKILL to all processes of a cgroup and of those below.

Theory of operation. Writing to cgroup.kill does it in one go, so that none escapes by forking (Linux 5.14, commit
661ee6280931); but the signal goes to main threads (__cgroup_kill, send_sig), and so spares a process whose main thread
has exited while another runs (Linux 6.1 and 6.18), however often it is written. Such a process is still listed in
cgroup.procs, and a signal to the process, by its pidfd, ends it. A number that was read may be another's by the time it
is used: so the pidfd is opened first, and used where the cgroup lists that number then.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from itertools import islice

from minicontainer.linux import cgroupfs
from minicontainer.native import lib

AT_ONCE = 64  # pidfds that are open together
FLAGS = os.O_RDONLY | os.O_CLOEXEC


def kill_all(fd: int) -> bool:
    """``cgroup.kill``. False before Linux 5.14, which has none. OSError."""
    result: int = lib.mc_write_at(fd, b"cgroup.kill", b"1", 1)
    if result < 0 and result != -errno.ENOENT:
        raise OSError(-result, os.strerror(-result))
    return result >= 0


def kill_listed(fd: int) -> None:
    """A kill for each process that is listed in the cgroup of that directory, or below it. What may not be signalled,
    or is of a pid namespace that this one does not show, is left out."""
    for directory in cgroupfs.walk(fd):
        pids = iter(_numbers(directory))
        while some := list(islice(pids, AT_ONCE)):
            _kill(directory, some)


def listed(fd: int) -> list[int]:
    """The processes in it and below, by number; 0 for each that this pid namespace does not show."""
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
    """What cgroup.procs lists. Nothing for a threaded cgroup (EOPNOTSUPP), whose processes are listed above it, and
    for one that is gone."""
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


def still_in(fd: int) -> str:
    """Which processes are still in it, in words."""
    pids: Iterator[int] = iter(sorted(listed(fd)))
    shown = " ".join(str(pid) if pid else "one of another pid namespace" for pid in islice(pids, 5))
    return f"processes are still in it: {shown}{' ...' if next(pids, None) is not None else ''}"


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """Whoever waits for the same end may have removed the cgroup meanwhile: nothing is left in it then. Its files are
    not there any more (ENOENT), or those that are open have nothing behind them (kernfs: ENODEV)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise

"""Processes: pidfds, start times, names, subreapers."""

from __future__ import annotations

import os

from minicontainer.native import lib, syscall


def pidfd_open(pid: int) -> int:
    """pidfd_open(2): readable when the process has ended; close-on-exec."""
    return syscall("pidfd_open", lib.SYS_pidfd_open, pid, 0, what=(pid,))


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2)."""
    syscall("pidfd_send_signal", lib.SYS_pidfd_send_signal, pidfd, number, None, 0, what=(pidfd, number))


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor (needs the right to trace it)."""
    return syscall("pidfd_getfd", lib.SYS_pidfd_getfd, pidfd, fd, 0, what=(pidfd, fd))


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of ``pid`` (proc(5), stat field 22): with the pid, who it is.
    ProcessLookupError where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            data = f.read()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return int(data[data.rindex(b")") + 2 :].split()[19])


def set_name(name: str) -> None:
    """The name of this thread (prctl(PR_SET_NAME)); ValueError above 15 bytes, which the kernel would cut."""
    if len(os.fsencode(name)) > 15:
        raise ValueError(f"{name!r} is longer than 15 bytes")
    import prctl

    prctl.set_name(name)


def set_child_subreaper(on: bool = True) -> None:
    """Makes orphans among this process's descendants its children (prctl(PR_SET_CHILD_SUBREAPER))."""
    import prctl

    prctl.set_child_subreaper(1 if on else 0)

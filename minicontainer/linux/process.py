"""Processes: pidfds and how they end, start times, limits, personality, prctl(2)."""

from __future__ import annotations

import errno
import os
import struct
import time

from minicontainer.linux.arguments import flags as number
from minicontainer.linux.processes import check_proc
from minicontainer.native import check, ffi, lib, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from functools import lru_cache
    from typing import NamedTuple
else:
    from minicontainer.light import lru_cache
    from minicontainer.records import NamedTuple

RLIMIT = struct.Struct("=QQ")  # struct rlimit64: soft, hard
INT_MAX = 2**31 - 1
INFINITE = float("inf")
UNLIMITED = 2**64 - 1


def pidfd_open(pid: int, flags: int | str = 0) -> int:
    """pidfd_open(2): readable when the process has ended; close-on-exec."""
    return syscall("pidfd_open", lib.SYS_pidfd_open, pid, number(flags), what=(pid,))


def open_pidfd(pid: int) -> int:
    """A pidfd of the process that has this number now; -1 where none has.

    Not only ESRCH says so: where a process ends during the call, or has ended while its number is still that of a
    session or process group, Linux 6.1 answers EINVAL: pidfd_create in kernel/pid.c finds the struct pid, but no
    process. Linux 6.18 answers ESRCH."""
    try:
        return pidfd_open(pid)
    except OSError as e:
        if e.errno in (errno.ESRCH, errno.EINVAL):
            return -1
        raise


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2)."""
    syscall("pidfd_send_signal", lib.SYS_pidfd_send_signal, pidfd, signal, None, 0, what=(pidfd, int(signal)))


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor, close-on-exec (needs the right to trace it)."""
    return syscall("pidfd_getfd", lib.SYS_pidfd_getfd, pidfd, fd, 0, what=(pidfd, fd))


def pidfd_wait(pidfd: int, timeout: float | None = None) -> bool:
    """Wait until the process has ended (ppoll(2)); False after ``timeout`` seconds. Does not reap it."""
    deadline = INFINITE if timeout is None else time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic()) * 1000
        milliseconds = -1 if left == INFINITE else min(int(left) + (left % 1 > 0), INT_MAX)
        ended = lib.mc_pidfd_wait(pidfd, milliseconds)
        if ended == -errno.EINTR or (ended == 0 and left > INT_MAX):
            continue  # EINTR: Python runs the signal handler before the next call
        return bool(check(ended, "ppoll", pidfd))


class Ended(NamedTuple):
    """Exit status of a child, and its resource usage with that of the children it waited for (getrusage(2))."""

    status: int  # the exit code, or minus the signal
    utime: float  # seconds
    stime: float  # seconds
    maxrss: int  # bytes; includes the parent's peak before exec (fork and exec keep it)


def waitid(pidfd: int) -> Ended:
    """waitid(2) of a child by its pidfd: wait for its end and reap it. ECHILD if it is no child of the caller."""
    status, usage = ffi.new("int *"), ffi.new("uint64_t[3]")
    while (result := lib.mc_pidfd_reap(pidfd, status, usage)) == -errno.EINTR:
        continue
    check(result, "waitid", pidfd)
    return Ended(status[0], usage[0] / 1e6, usage[1] / 1e6, usage[2] * 1024)


class Stat(NamedTuple):
    """Fields of /proc/PID/stat (proc(5)) that identify a process and its state."""

    pid: int
    state: str  # of its main thread: R, S, D ... Z and X have ended
    start: int  # clock ticks from boot
    threads: int = 1

    @property
    def has_ended(self) -> bool:
        """Whether all its threads have ended: other threads may outlive the main thread, which is then a zombie."""
        return self.state in "ZX" and self.threads <= 1


def stat(pid: int | str) -> Stat:
    """Read /proc/PID/stat of ``pid`` or ``self``. ProcessLookupError if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            data = f.read()
    except (FileNotFoundError, ProcessLookupError):  # the latter where the process ends between open and read
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), f"/proc/{pid}/stat") from None
    fields = data[data.rindex(b")") + 2 :].split()  # from field 3 on; starttime is field 22
    return Stat(int(data[: data.index(b" ")]), fields[0].decode(), int(fields[19]), int(fields[17]))


def start_time(pid: int) -> int:
    """Clock ticks from boot to the process's start: with the pid, its identity. ProcessLookupError."""
    return stat(pid).start


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The boot id (random(4)), which differs after each boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as f:
        return f.read().strip()


class Process:
    """A process by number and start time (clock ticks since this boot)."""

    __slots__ = ("pid", "start")

    def __init__(self, pid: int, start: int) -> None:
        self.pid, self.start = pid, start

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and (self.pid, self.start) == (other.pid, other.start)

    def __hash__(self) -> int:
        return hash((self.pid, self.start))

    def is_alive(self) -> bool:
        """Whether the process still runs, and its pid was not reused."""
        check_proc()
        try:
            current = stat(self.pid)
        except ProcessLookupError:
            return False
        return current.start == self.start and not current.has_ended

    def pidfd(self) -> int:
        """A pidfd of the process; -1 where it has ended. The start time is compared after the pidfd was opened, so the
        pidfd is not that of a later process with the same pid."""
        check_proc()
        fd = open_pidfd(self.pid)
        if fd < 0:
            return -1
        is_alive = False
        try:
            is_alive = self.is_alive()
        finally:
            if not is_alive:
                os.close(fd)
        return fd if is_alive else -1


def prlimit(pid: int, resource: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """prlimit64(2): returns the old (soft, hard), and sets ``limits`` unless they are None; -1 is unlimited.

    ``resource`` is one of ``resource.RLIMIT_*`` of the standard library; pid 0 is the calling process."""
    old = bytearray(RLIMIT.size)
    new = None if limits is None else RLIMIT.pack(limits[0] & UNLIMITED, limits[1] & UNLIMITED)
    syscall("prlimit64", lib.SYS_prlimit64, pid, resource, new, old, what=(pid, resource, limits))
    soft, hard = (-1 if value == UNLIMITED else value for value in RLIMIT.unpack(old))
    return soft, hard


def personality(persona: int | str = 0xFFFFFFFF) -> int:
    """personality(2) of the calling thread: returns the old one, and sets ``persona``, as ``"ADDR_NO_RANDOMIZE"``."""
    return syscall("personality", lib.SYS_personality, number(persona))


def prctl(option: int | str, *args: int) -> int:
    """prctl(2) with integers: ``prctl("PR_SET_NO_NEW_PRIVS", 1)``; missing arguments are 0."""
    value = number(option)
    return syscall("prctl", lib.SYS_prctl, value, *(*args, 0, 0, 0, 0)[:4], what=(value, *args))


def set_name(name: str) -> None:
    """Set the name of this thread (prctl(PR_SET_NAME)). ValueError above 15 bytes, which the kernel would cut."""
    if len(os.fsencode(name)) > 15:
        raise ValueError(f"{name!r} is longer than 15 bytes")
    import prctl

    prctl.set_name(name)


def get_name() -> str:
    """The name of this thread (prctl(PR_GET_NAME))."""
    import prctl

    return str(prctl.get_name())


def set_child_subreaper(on: bool = True) -> None:
    """Make this process the parent of its orphaned descendants (prctl(PR_SET_CHILD_SUBREAPER))."""
    import prctl

    prctl.set_child_subreaper(1 if on else 0)


def get_child_subreaper() -> bool:
    """Whether this process is a subreaper (prctl(PR_GET_CHILD_SUBREAPER))."""
    import prctl

    return bool(prctl.get_child_subreaper())

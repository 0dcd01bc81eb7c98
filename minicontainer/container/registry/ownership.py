"""Ownership locks: each container has a byte of a file in the state directory, which its owner process locks.

Theory of operation. The owner of a container is the process that started it, or its monitor. A process id means nothing
in another pid namespace, and a process in a container could lock the directory of its cgroup. So the owner holds a lock
(fcntl(2), F_OFD_SETLK) on the byte whose offset is the container's id. The kernel releases it with the last copy of the
descriptor, however the owner ended. Every process with access to the state directory can test the lock, and no process
in a container can. There are 256 files, since closing a descriptor walks all locks of its file (locks_remove_posix in
the kernel's fs/locks.c).
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer import runtime
from minicontainer.errors import EXHAUSTED, Error, StepError
from minicontainer.native import check, lib

PATIENCE = 10.0  # seconds that ``acquire`` waits for an owner whose container has ended


def acquire(ident: str) -> int:
    """Locks the byte of this container (12 hexadecimal digits). Returns the descriptor, whose last copy holds the lock.
    Error where another process holds it."""
    deadline = time.monotonic() + PATIENCE
    while (fd := try_acquire(ident)) < 0:
        if time.monotonic() > deadline:
            raise Error(f"container {ident}: another process looks after it (minicontainer ps -a)")
        time.sleep(0.01)
    return fd


def try_acquire(ident: str) -> int:
    """``acquire`` without waiting; -1 where another process holds the lock."""
    fd = _open(ident, os.O_CREAT)
    try:
        result = lib.mc_lock(fd, lib.F_WRLCK, int(ident, 16), 1)
    except BaseException:  # of a signal handler
        os.close(fd)
        raise
    if result == 0:
        return fd
    os.close(fd)
    if result in (-errno.EAGAIN, -errno.EACCES):
        return -1
    raise StepError(-result, f"fcntl({_path(ident)!r}, F_OFD_SETLK)")


def is_owned(ident: str) -> bool:
    """Whether the container has an owner, which may be this process."""
    try:
        fd = _open(ident, 0)
    except FileNotFoundError:
        return False
    try:
        return bool(check(lib.mc_is_locked(fd, int(ident, 16)), "fcntl", _path(ident), "F_OFD_GETLK"))
    finally:
        os.close(fd)


def directory() -> str:
    """The directory of the lock files."""
    return f"{runtime.directory()}/owners"


def _path(ident: str) -> str:
    return f"{directory()}/{ident[-2:]}"


def _open(ident: str, flags: int) -> int:
    path, flags = _path(ident), flags | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            runtime.make_directory(os.path.dirname(path))
            return os.open(path, flags, 0o600)
    except OSError as e:
        hint = "" if e.errno in EXHAUSTED else "the state directory has to be writable"
        raise StepError(e.errno or 0, f"open({path!r})", hint=hint) from None

"""Who lives: each container has a byte of a file in the state directory, locked as long as somebody looks after it.

Theory of operation. Process numbers tell nothing to a process of another pid namespace, and a lock on a directory of
the cgroup can be taken by who lives in that. So the one who made a container, or its monitor, holds a lock (fcntl(2),
F_OFD_SETLK) on the byte whose offset is the container's id. The kernel gives it up when the last copy of its descriptor
is closed, however its owner died; anybody with the state directory can ask for it, and nobody in a container sees it.
There are 256 files, since who closes a descriptor of a file walks all locks of it (locks_remove_posix in the kernel's
fs/locks.c).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from minicontainer import runtime
from minicontainer.errors import EXHAUSTED, Error, StepError

FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
PATIENCE = 10.0  # seconds that an owner may take to end, after it has said that its container has


def acquire(ident: str) -> int:
    """The descriptor that says that this container (12 hexadecimal digits) lives, until its last copy is closed.
    Error where another has it."""
    deadline = time.monotonic() + PATIENCE
    while (fd := try_acquire(ident)) < 0:
        if time.monotonic() > deadline:
            raise Error(f"container {ident}: another process looks after it (minicontainer ps -a)")
        time.sleep(0.01)
    return fd


def try_acquire(ident: str) -> int:
    """``claim`` at once; -1 where another has it."""
    fd = _open(ident, os.O_CREAT)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(ident))
    except OSError as e:
        os.close(fd)
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return -1
        raise StepError(e.errno or 0, f"fcntl({_path(ident)!r}, F_OFD_SETLK)") from None
    return fd


def is_owned(ident: str) -> bool:
    """Whether somebody looks after it. Of this process's own claims too."""
    try:
        fd = _open(ident, 0)
    except FileNotFoundError:
        return False
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _lock(ident))
    finally:
        os.close(fd)
    return bool(FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _lock(ident: str) -> bytes:
    return FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, int(ident, 16), 1, 0)


def directory() -> str:
    """Where the files of the locks are."""
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

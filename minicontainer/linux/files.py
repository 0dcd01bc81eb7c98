"""Descriptors and paths: openat2(2), close_range(2), sealed memfds; files named by options."""

from __future__ import annotations

import os
import time

from minicontainer.errors import SpecError
from minicontainer.linux.arguments import flags as number
from minicontainer.linux.arguments import path as encoded
from minicontainer.native import lib, syscall
from minicontainer.plan.language import OPEN_HOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack

    from minicontainer.linux.arguments import StrPath

LEASE_TIMEOUT = 0.5  # seconds to wait for the holder of a lease to release it


def openat2(dirfd: int, path: StrPath, flags: int | str, mode: int = 0, resolve: int | str = 0) -> int:
    """openat2(2): a descriptor of ``path`` below ``dirfd`` (AT_FDCWD: the current directory).

    ``resolve``: RESOLVE_* flags; with RESOLVE_IN_ROOT or RESOLVE_BENEATH nothing outside can be reached.
    OSError: ELOOP for a forbidden link, EXDEV for a way out, and those of open(2)."""
    how = OPEN_HOW.pack(number(flags) | lib.O_CLOEXEC, mode, number(resolve))
    what = (dirfd, os.fspath(path))
    return syscall("openat2", lib.SYS_openat2, dirfd, encoded(path), how, OPEN_HOW.size, what=what)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int | str = 0) -> None:
    """close_range(2): closes (or with CLOSE_RANGE_CLOEXEC marks) every descriptor from ``first`` to ``last``."""
    syscall("close_range", lib.SYS_close_range, first, last, number(flags))


def owned(stack: ExitStack, fd: int) -> int:
    """Returns ``fd``, which ``stack`` closes; -1 (no descriptor) is left alone."""
    if fd >= 0:
        stack.callback(os.close, fd)
    return fd


def memfd(name: str, data: bytes, flags: int | str = 0) -> int:
    """memfd_create(2) with ``data``."""
    flags = number(flags) | lib.MFD_CLOEXEC
    fd = syscall("memfd_create", lib.SYS_memfd_create, encoded(name), flags, what=(name,))
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_memfd(name: str, data: bytes) -> int:
    """memfd_create(2) with ``data``, sealed against changes by any process (F_SEAL_WRITE ...)."""
    fd = memfd(name, data, "MFD_ALLOW_SEALING")
    try:
        import fcntl

        seals = lib.F_SEAL_SEAL | lib.F_SEAL_SHRINK | lib.F_SEAL_GROW | lib.F_SEAL_WRITE
        fcntl.fcntl(fd, lib.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


LEASED = "a process holds a lease of it (fcntl(2))"


def reopen(fd: int, flags: int) -> int:
    """Open the file of an O_PATH descriptor with other flags. OSError without a file name; EWOULDBLOCK if a process
    holds a lease of the file (fcntl(2)) for longer than LEASE_TIMEOUT."""
    deadline = time.monotonic() + LEASE_TIMEOUT
    while True:
        try:
            return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except BlockingIOError as e:
            if time.monotonic() > deadline:
                raise OSError(e.errno, LEASED) from None
        except OSError as e:
            raise OSError(e.errno, e.strerror) from None
        time.sleep(0.01)


def read_whole(what: str, path: str, most: int) -> bytes:
    """The content of the file that the option ``what`` names. SpecError if it is unreadable, or larger than ``most``
    bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as e:
        raise SpecError(what, path, (e.strerror or str(e)).lower()) from None
    if len(data) > most:
        raise SpecError(what, path, f"is larger than {most} bytes")
    return data

"""inotify(7): a descriptor that reports events of files."""

from __future__ import annotations

import os

from minicontainer.linux.arguments import flags as number
from minicontainer.linux.arguments import path as encoded
from minicontainer.native import lib, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.linux.arguments import StrPath


def inotify_init1(flags: int | str = "IN_NONBLOCK") -> int:
    """inotify_init1(2), close-on-exec."""
    return syscall("inotify_init1", lib.SYS_inotify_init1, number(flags) | lib.IN_CLOEXEC)


def inotify_add_watch(fd: int, path: StrPath, mask: int | str) -> int:
    """inotify_add_watch(2)."""
    what = (fd, os.fspath(path), mask)
    return syscall("inotify_add_watch", lib.SYS_inotify_add_watch, fd, encoded(path), number(mask), what=what)


def watching(path: StrPath, mask: int | str) -> int:
    """A new descriptor, nonblocking and close-on-exec, that watches ``path``."""
    fd = inotify_init1()
    try:
        inotify_add_watch(fd, path, mask)
    except BaseException:
        os.close(fd)
        raise
    return fd

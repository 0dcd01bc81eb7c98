"""Removes a directory tree without following links, crossing mounts, or running out of descriptors.

Theory of operation. A hostile tree can be deeper than the stack, PATH_MAX and the limit of open descriptors. So there
is no recursion: the subdirectories of a directory are moved to the top (rename(2)), which leaves it empty and
removable. At most three descriptors are open, and each entry is touched a bounded number of times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from minicontainer.linux.attributes import not_removed
from minicontainer.linux.files import openat2
from minicontainer.native import lib

REFUSED = (errno.EPERM, errno.EACCES, errno.EBUSY)
INSIDE = lib.RESOLVE_BENEATH | lib.RESOLVE_NO_SYMLINKS | lib.RESOLVE_NO_XDEV


def open_inside(directory: int, path: str, flags: int, resolve: int = INSIDE) -> int:
    """A descriptor of ``path`` in ``directory``, resolved by ``resolve`` of openat2(2) (default: no links, beneath).

    OSError of the class for its errno (FileNotFoundError ...)."""
    try:
        return openat2(directory, path, flags, 0, resolve)
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None


def remove(parent: int, name: str) -> None:
    """Remove ``name`` from the directory ``parent``; a directory with its contents.

    StepError, as unlinkat(2), has the path of the file that remains and the remedy. OSError EXDEV for a mount point
    below it; the mounted files are not touched."""
    if not _unlink(parent, name):
        top = open_directory(parent, name)
        try:
            empty(top)
        finally:
            os.close(top)
        _rmdir(parent, name)


def empty(top: int) -> None:
    """Remove the contents of a directory (a readable descriptor)."""
    fresh = _fresh_names()
    while names := os.listdir(top):
        for name in names:
            if not _unlink(top, name):
                _flatten(top, name, fresh)
                _rmdir(top, name)


def open_directory(parent: int, name: str) -> int:
    """A readable descriptor of the directory ``name``, whose mode is changed to u+rwx if necessary."""
    place = open_inside(parent, name, lib.O_PATH | os.O_DIRECTORY)
    try:
        mode = os.fstat(place).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU and os.geteuid() != 0:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(mode) | stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    finally:
        os.close(place)


def _flatten(top: int, name: str, fresh: Iterator[str]) -> None:
    """Empty the directory ``name`` of ``top``: its subdirectories are moved to ``top``."""
    below = open_directory(top, name)
    try:
        for child in os.listdir(below):
            if not _unlink(below, child):
                os.close(open_directory(below, child))  # makes it writable: moving it changes its ".."
                try:
                    os.rename(child, next(fresh), src_dir_fd=below, dst_dir_fd=top)
                except PermissionError as e:
                    raise not_removed(e, _path(below, child)) from None
    finally:
        os.close(below)


def _unlink(parent: int, name: str) -> bool:
    """Remove a file or an empty directory; False for a directory that is not empty."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        try:
            _rmdir(parent, name)
        except OSError as e:
            if e.errno != errno.ENOTEMPTY:
                raise
            return False
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        raise not_removed(e, _path(parent, name)) from None
    return True


def _rmdir(parent: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        raise not_removed(e, _path(parent, name)) from None


def _path(directory: int, name: str) -> str:
    return f"{os.readlink(f'/proc/self/fd/{directory}')}/{name}"


def _fresh_names() -> Iterator[str]:
    """Unpredictable names."""
    token = os.urandom(12).hex()
    number = 0
    while True:
        number += 1
        yield f".{token}.{number}"

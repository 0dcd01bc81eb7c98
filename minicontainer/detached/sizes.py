"""How much a container has written, and how much its files take: sizes as ls(1) shows them, once for each file.

Who writes there is hostile: it is walked by descriptors, no link is followed, nothing but directories is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minicontainer.detached.changes import upper_layer
from minicontainer.errors import Error

if TYPE_CHECKING:
    from minicontainer.detached.client import Handle

DEPTH = 200  # directories in directories: a descriptor is open for each
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sizes(container: Handle) -> tuple[int | None, int | None]:
    """Bytes of the upper layer of an ephemeral one that runs (None: there is none), and of that and ROOTFS together."""
    spec, written = container.config.spec, None
    if spec.ephemeral and container.state.is_running:
        with upper_layer(container, "ps") as upper:
            written = tree_size(upper)
    rootfs = os.open(spec.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return written, tree_size(rootfs) + (written or 0)
    finally:
        os.close(rootfs)


def tree_size(top: int) -> int:
    """Of the files below a directory (a descriptor) on its file system."""
    size, seen, device = 0, set(), os.fstat(top).st_dev
    levels: list[tuple[int, Iterator[str]]] = [(os.dup(top), iter(os.listdir(top)))]
    try:
        while levels:
            directory, names = levels[-1]
            if (name := next(names, None)) is None:
                os.close(levels.pop()[0])
                continue
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                    if len(levels) == DEPTH:
                        raise Error(f"size: {name} is below more than {DEPTH} directories")
                    levels.append(_entered(directory, name))
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # it is another by now, or not ours to see
            if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                size += 0 if found.st_ino in seen else found.st_size
                if found.st_nlink > 1:
                    seen.add(found.st_ino)
    finally:
        for directory, _ in levels:
            os.close(directory)
    return size


def _entered(directory: int, name: str) -> tuple[int, Iterator[str]]:
    fd = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        return fd, iter(os.listdir(fd))
    except BaseException:
        os.close(fd)
        raise

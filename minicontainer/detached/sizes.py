"""The bytes that a container has written, and the bytes of all its files: sizes as ls(1) shows them, each file once.

The container is hostile: so trees are walked by descriptors, no link is followed, and only directories are opened.
"""

from __future__ import annotations

import os
import stat

from minicontainer.detached.changes import upper_layer
from minicontainer.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minicontainer.detached.client import Client

DEPTH = 200  # nested directories: each takes a descriptor
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sizes(container: Client) -> tuple[int | None, int | None]:
    """Bytes of the upper layer of a running ephemeral container (None: there is no upper layer), and the sum
    of these and the bytes of ROOTFS."""
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
    """Bytes of the files below a directory (a descriptor), on its file system alone."""
    size, counted, device = 0, set(), os.fstat(top).st_dev
    levels: list[tuple[int, Iterator[str]]] = [(os.dup(top), iter(os.listdir(top)))]
    try:
        while levels:
            directory, names = levels[-1]
            if (name := next(names, None)) is None:
                os.close(levels.pop()[0])
                continue
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                    if len(levels) == DEPTH:
                        raise Error(f"size: {name} is below more than {DEPTH} directories")
                    levels.append(_open_level(directory, name))
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # it was replaced meanwhile, or may not be read
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                size += 0 if status.st_ino in counted else status.st_size
                if status.st_nlink > 1:
                    counted.add(status.st_ino)
    finally:
        for directory, _ in levels:
            os.close(directory)
    return size


def _open_level(directory: int, name: str) -> tuple[int, Iterator[str]]:
    fd = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        return fd, iter(os.listdir(fd))
    except BaseException:
        os.close(fd)
        raise

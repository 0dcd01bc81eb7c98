"""Creates a directory completely or not at all.

Theory of operation. A missing directory is built beside its final path, under a temporary name and closed to others,
and renamed when it is complete. An existing empty directory is filled in place (it may be a mount point, and keeps its
owner and mode), and emptied again on failure. The caller decides about a directory that is not empty. A killed process
leaves ``.XXXXXXXX.part`` (mode 0700) behind, never an incomplete directory at the final path.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from minicontainer.errors import Error, SpecError, sentence
from minicontainer.rootfs.removal import empty, remove

MODE = 0o755  # of a new root, by default
OPEN = os.O_RDONLY | os.O_DIRECTORY


def open_existing(path: str) -> int | None:
    """A descriptor of the directory ``path``; None if it does not exist.

    SpecError for anything but a directory, and for the host's own root."""
    if not path or "\0" in path:
        raise SpecError("DIR", path, "names no directory")
    try:
        fd = os.open(path, OPEN)
    except FileNotFoundError:
        if os.path.islink(path.rstrip("/")):
            raise SpecError("DIR", path, "is a dangling symbolic link") from None
        return None
    except NotADirectoryError:
        raise SpecError("DIR", path, "is not a directory") from None
    except OSError as e:
        raise Error(sentence("DIR", path, os.strerror(e.errno or 0))) from None
    if os.path.samestat(os.fstat(fd), os.stat("/")):
        os.close(fd)
        raise SpecError("DIR", path, "is the root of this host")
    return fd


@contextmanager
def filled(root: int) -> Iterator[int]:
    """An existing directory to fill; if it is empty now, it is emptied again after a failure."""
    was_empty = not os.listdir(root)
    try:
        yield root
    except BaseException:
        if was_empty:
            empty(root)
        raise


@contextmanager
def made(path: str) -> Iterator[int]:
    """A new directory (a descriptor), renamed to ``path`` at the end of the block, or removed if the block fails.

    Its mode is 0700; the block sets the final mode."""
    parent, name = _place(path)
    part = f".{os.urandom(4).hex()}.part"
    try:
        os.mkdir(part, 0o700, dir_fd=parent)
        try:
            root = os.open(part, OPEN | os.O_NOFOLLOW, dir_fd=parent)
            try:
                fcntl.flock(root, fcntl.LOCK_EX)  # shows the doctor that it is in use
                yield root
                _rename(parent, part, name, path)
            finally:
                os.close(root)
        except BaseException:
            remove(parent, part)
            raise
    finally:
        os.close(parent)


def _place(path: str) -> tuple[int, str]:
    """The parent directory of ``path`` (a descriptor), and its name there."""
    directory, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise SpecError("DIR", path, "names no directory")
    try:
        return os.open(directory or ".", OPEN), name
    except OSError as e:
        hint = "create it first: only DIR itself is created" if isinstance(e, FileNotFoundError) else ""
        raise Error(sentence("directory", directory or ".", os.strerror(e.errno or 0), hint)) from None


def _rename(parent: int, part: str, name: str, path: str) -> None:
    try:
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as e:
        reason = f"was created by another process meanwhile: {os.strerror(e.errno or 0)}"
        raise Error(sentence("DIR", path, reason)) from None

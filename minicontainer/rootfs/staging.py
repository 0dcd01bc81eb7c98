"""A directory that is made whole or not at all.

Theory of operation. What is not there yet is built beside its place, under a name of its own and closed to others, and
renamed when it is complete. What is there and empty is filled in place (it may be a mount point, and its owner
and mode are its maker's choice), and emptied again on failure. What holds something is refused or handed on by the
caller. Killed meanwhile, the first leaves ``.XXXXXXXX.part`` behind (mode 0700), never half a directory in its place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from minicontainer.errors import Error, SpecError, sentence
from minicontainer.rootfs.removal import empty, remove

MODE = 0o755  # of a new root, where nothing else is said
OPEN = os.O_RDONLY | os.O_DIRECTORY


def open_existing(path: str) -> int | None:
    """A descriptor of the directory ``path``; None if nothing is there.

    SpecError for something else than a directory, and for the host's own root."""
    if not path or "\0" in path:
        raise SpecError("DIR", path, "names no directory")
    try:
        fd = os.open(path, OPEN)
    except FileNotFoundError:
        if os.path.islink(path.rstrip("/")):
            raise SpecError("DIR", path, "is a symbolic link to nothing") from None
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
    """An existing directory to be filled; if it is empty now, it is empty again after a failure."""
    was_empty = not os.listdir(root)
    try:
        yield root
    except BaseException:
        if was_empty:
            empty(root)
        raise


@contextmanager
def made(path: str) -> Iterator[int]:
    """A new directory (a descriptor) that becomes ``path`` when the block ends well, and vanishes when it fails.

    Its mode is 0700: the block gives it the one that it shall have."""
    parent, name = _place(path)
    part = f".{os.urandom(4).hex()}.part"
    try:
        os.mkdir(part, 0o700, dir_fd=parent)
        try:
            root = os.open(part, OPEN | os.O_NOFOLLOW, dir_fd=parent)
            try:
                fcntl.flock(root, fcntl.LOCK_EX)  # tells the doctor that somebody is at work here
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
    """The directory (a descriptor) that ``path`` is to be made in, and its name there."""
    directory, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise SpecError("DIR", path, "names no directory")
    try:
        return os.open(directory or ".", OPEN), name
    except OSError as e:
        hint = "it is not made: only DIR itself is" if isinstance(e, FileNotFoundError) else ""
        raise Error(sentence("directory", directory or ".", os.strerror(e.errno or 0), hint)) from None


def _rename(parent: int, part: str, name: str, path: str) -> None:
    try:
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as e:
        reason = f"was made by somebody else meanwhile: {os.strerror(e.errno or 0)}"
        raise Error(sentence("DIR", path, reason)) from None

"""Obstacles that keep even root from removing a file: the attributes of chattr(1), and mounts (statx(2))."""

from __future__ import annotations

import errno
import os
import struct

from minicontainer.errors import StepError, quote
from minicontainer.native import lib, syscall

STATX = struct.Struct("@IIQ240x")  # struct statx: mask, block size, attributes, unused fields


def _attributes(path: str) -> int:
    buffer = bytearray(STATX.size)
    try:
        syscall("statx", lib.SYS_statx, lib.AT_FDCWD, os.fsencode(path) + b"\0", lib.AT_SYMLINK_NOFOLLOW, 0, buffer)
    except OSError:
        return 0  # there is no such file
    _, _, attributes = STATX.unpack(buffer)
    return int(attributes)


def obstacle(path: str) -> tuple[int, str]:
    """Why no process can remove, rename or replace ``path``: the errno, and the command that removes the obstacle;
    (0, "") where nothing prevents it. ext4, XFS and Btrfs have the attributes of chattr(1), tmpfs since Linux 6.6."""
    if _attributes(path) & lib.STATX_ATTR_MOUNT_ROOT:
        return errno.EBUSY, f"umount {quote(path)}"
    for each in (path, os.path.dirname(path)):
        attributes = _attributes(each)
        if attributes & lib.STATX_ATTR_IMMUTABLE:
            return errno.EPERM, f"chattr -i {quote(each)}"
        if attributes & lib.STATX_ATTR_APPEND:
            return errno.EPERM, f"chattr -a {quote(each)}"
    return 0, ""


def not_removed(error: OSError, path: str) -> StepError:
    """The error of a failed removal or rename of ``path``, with the remedy."""
    number, remedy = obstacle(path)
    return StepError(error.errno or 0, f"remove {quote(path)}", hint=remedy if number == error.errno else "")


def check_removable(path: str, *, leave: str = "") -> None:
    """StepError for the first obstacle to the removal of ``path`` and of the files below it, except those below a
    directory called ``leave``. Changes nothing."""
    number, remedy = obstacle(path)
    if number:
        raise StepError(number, f"remove {quote(path)}", hint=remedy)
    if os.path.basename(path) != leave and os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            check_removable(f"{path}/{name}", leave=leave)


def remove_tree(path: str) -> None:
    """Removes the file or directory tree ``path``; a missing file is no error. StepError names the file that remains.

    Resolves paths, so it is safe only for trees that no container can write to; for others use rootfs.removal."""
    try:
        try:
            os.unlink(path)
        except IsADirectoryError:
            for name in os.listdir(path):
                remove_tree(f"{path}/{name}")
            os.rmdir(path)
    except FileNotFoundError:
        pass
    except StepError:
        raise
    except OSError as e:
        raise not_removed(e, path) from None

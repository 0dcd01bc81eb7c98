"""Mounts: mount(2), the mount API of file descriptors (fsopen(2) ... mount_setattr(2)), and /proc/PID/mountinfo."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from minicontainer.linux.flags import flags as number
from minicontainer.linux.namespaces import path
from minicontainer.native import lib, syscall

MOUNT_ATTR = struct.Struct("=QQQQ")  # struct mount_attr: set, clear, propagation, userns_fd


def mount(
    source: str | None, target: str, fstype: str | None = None, flags: int | str = 0, data: str | None = None
) -> None:
    """mount(2); flags of MS_*."""
    args = [None if a is None else path(a) for a in (source, target, fstype)]
    last = None if data is None else path(data)
    syscall("mount", lib.SYS_mount, *args, number(flags), last, what=(source, target, fstype, flags, data))


def umount(target: str, flags: int | str = 0) -> None:
    """umount2(2); flags of MNT_* and UMOUNT_NOFOLLOW."""
    syscall("umount2", lib.SYS_umount2, path(target), number(flags), what=(target, flags))


def open_tree(target: str, flags: int | str = 0, dirfd: int = lib.AT_FDCWD) -> int:
    """open_tree(2): a mount as a descriptor; with OPEN_TREE_CLONE (and AT_RECURSIVE) a detached copy."""
    value = number(flags) | lib.OPEN_TREE_CLOEXEC
    return syscall("open_tree", lib.SYS_open_tree, dirfd, path(target), value, what=(target, flags))


def move_mount(tree: int, target: str, flags: int | str = "MOVE_MOUNT_F_EMPTY_PATH", dirfd: int = lib.AT_FDCWD) -> None:
    """move_mount(2): attaches the mount of descriptor ``tree`` at ``target``."""
    syscall("move_mount", lib.SYS_move_mount, tree, b"", dirfd, path(target), number(flags), what=(tree, target))


def fsopen(fstype: str) -> int:
    """fsopen(2): the configuration of a new file system."""
    return syscall("fsopen", lib.SYS_fsopen, path(fstype), lib.FSOPEN_CLOEXEC, what=(fstype,))


def fspick(target: str, flags: int | str = 0, dirfd: int = lib.AT_FDCWD) -> int:
    """fspick(2): the configuration of a mounted file system."""
    value = number(flags) | lib.FSPICK_CLOEXEC
    return syscall("fspick", lib.SYS_fspick, dirfd, path(target), value, what=(target,))


def fsconfig(fd: int, command: int | str, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """fsconfig(2); command of FSCONFIG_*."""
    key_data, value_data = (None if a is None else path(a) for a in (key, value))
    shown = (command, key, value)
    syscall("fsconfig", lib.SYS_fsconfig, fd, number(command), key_data, value_data, aux, what=shown)


def fsmount(fd: int, attrs: int | str = 0) -> int:
    """fsmount(2): a detached mount of what ``fsconfig`` made; attrs of MOUNT_ATTR_*."""
    return syscall("fsmount", lib.SYS_fsmount, fd, lib.FSMOUNT_CLOEXEC, number(attrs), what=(fd, attrs))


def mount_setattr(
    dirfd: int,
    target: str = "",
    *,
    attr_set: int | str = 0,
    attr_clr: int | str = 0,
    propagation: int | str = 0,
    userns_fd: int | None = None,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) of ``target`` below ``dirfd``, or with "" of the mount that ``dirfd`` is.

    ``userns_fd`` makes it an ID-mapped mount (MOUNT_ATTR_IDMAP); the mount must then be detached."""
    flags = (lib.AT_EMPTY_PATH if not target else 0) | (lib.AT_RECURSIVE if recursive else 0)
    wanted = number(attr_set) | (0 if userns_fd is None else lib.MOUNT_ATTR_IDMAP)
    attr = MOUNT_ATTR.pack(wanted, number(attr_clr), number(propagation), userns_fd or 0)
    shown = (target or dirfd, attr_set, attr_clr)
    syscall("mount_setattr", lib.SYS_mount_setattr, dirfd, path(target), flags, attr, len(attr), what=shown)


class MountInfo(NamedTuple):
    """One line of /proc/PID/mountinfo (proc(5)); paths are unescaped."""

    id: int
    parent: int
    device: str  # MAJOR:MINOR
    root: str
    target: str
    options: frozenset[str]
    optional: tuple[str, ...]  # shared:N master:N ...
    fstype: str
    source: str
    super_options: frozenset[str]


def mountinfo(pid: int | str = "self") -> list[MountInfo]:
    """The mounts that a process sees."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return [parse_mountinfo(line) for line in f]


def parse_mountinfo(line: str) -> MountInfo:
    """One line; ValueError where it is none."""
    left, separator, right = line.rstrip("\n").partition(" - ")
    fields, after = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(after) < 3:
        raise ValueError(f"no line of mountinfo: {line!r}")
    root, target, source = (_unescape(f) for f in (fields[3], fields[4], after[1]))
    return MountInfo(
        int(fields[0]),
        int(fields[1]),
        fields[2],
        root,
        target,
        frozenset(fields[5].split(",")),
        tuple(fields[6:]),
        after[0],
        source,
        frozenset(after[2].split(",")),
    )


def _unescape(text: str) -> str:
    """The kernel's octal escapes (space, tab, newline, backslash, #: mangle_path)."""
    data = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8) & 0xFF]), text.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "surrogateescape")

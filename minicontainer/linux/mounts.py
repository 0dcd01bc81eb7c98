"""Mounts: mount(2), the mount API of file descriptors (fsopen(2) ... mount_setattr(2)), and /proc/PID/mountinfo."""

from __future__ import annotations

import os
import struct

from minicontainer.errors import StepError
from minicontainer.linux.arguments import flags as number
from minicontainer.linux.arguments import path
from minicontainer.native import lib, syscall
from minicontainer.plan.language import MOUNT_ATTR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.linux.arguments import StrPath
else:
    from minicontainer.records import NamedTuple

KERNEL_FILESYSTEMS = {  # statfs(2) types of file systems whose content the kernel generates
    getattr(lib, f"{name}_MAGIC")
    for name in "PROC_SUPER SYSFS CGROUP_SUPER CGROUP2_SUPER DEBUGFS TRACEFS SECURITYFS BPF_FS EFIVARFS PSTOREFS"
    " SELINUX SMACK".split()
}


def mount(
    source: StrPath | None, target: StrPath, fstype: str | None = None, flags: int | str = 0, data: str | None = None
) -> None:
    """mount(2); flags of MS_*."""
    strings = (source, target, fstype, data)
    a, b, c, d = (None if s is None else path(s) for s in strings)
    texts = [None if s is None else os.fspath(s) for s in strings]
    options = number(flags)
    syscall("mount", lib.SYS_mount, a, b, c, options, d, what=(*texts[:3], options, texts[3]))


def umount(target: StrPath, flags: int | str = 0) -> None:
    """umount2(2); flags of MNT_* and UMOUNT_NOFOLLOW."""
    options = number(flags)
    syscall("umount2", lib.SYS_umount2, path(target), options, what=(os.fspath(target), options))


def open_tree(target: StrPath, flags: int | str = 0, dirfd: int = lib.AT_FDCWD) -> int:
    """open_tree(2): a mount as a descriptor; with OPEN_TREE_CLONE (and AT_RECURSIVE) a detached copy."""
    value = number(flags)
    what = (os.fspath(target), value)
    return syscall("open_tree", lib.SYS_open_tree, dirfd, path(target), value | lib.OPEN_TREE_CLOEXEC, what=what)


def move_mount(
    tree: int, target: StrPath, flags: int | str = "MOVE_MOUNT_F_EMPTY_PATH", dirfd: int = lib.AT_FDCWD
) -> None:
    """move_mount(2): attaches the mount of descriptor ``tree`` at ``target``."""
    value = number(flags)
    what = (tree, os.fspath(target), value)
    syscall("move_mount", lib.SYS_move_mount, tree, b"", dirfd, path(target), value, what=what)


def fsopen(fstype: str) -> int:
    """fsopen(2): the configuration of a new file system."""
    return syscall("fsopen", lib.SYS_fsopen, path(fstype), lib.FSOPEN_CLOEXEC, what=(fstype,))


def fspick(target: StrPath, flags: int | str = 0, dirfd: int = lib.AT_FDCWD) -> int:
    """fspick(2): the configuration of a mounted file system."""
    value = number(flags)
    what = (os.fspath(target), value)
    return syscall("fspick", lib.SYS_fspick, dirfd, path(target), value | lib.FSPICK_CLOEXEC, what=what)


def fsconfig(
    fd: int, command: int | str, key: str | None = None, value: str | bytes | None = None, aux: int = 0
) -> None:
    """fsconfig(2); command of FSCONFIG_*. Bytes are for FSCONFIG_SET_BINARY, ``aux`` the descriptor of FSCONFIG_SET_FD.

    The OSError includes the messages of the file system, if there are any."""
    first = None if key is None else path(key)
    second = path(value) if isinstance(value, str) else value
    if isinstance(value, bytes):
        aux = aux or len(value)
    wanted = number(command)
    what = (fd, wanted, key, value, aux)
    try:
        syscall("fsconfig", lib.SYS_fsconfig, fd, wanted, first, second, aux, what=what)
    except StepError as e:
        raise _with_messages(e, fd) from None


def fsmount(fd: int, attrs: int | str = 0) -> int:
    """fsmount(2): a detached mount of the file system that ``fsconfig`` created; attrs of MOUNT_ATTR_*."""
    value = number(attrs)
    try:
        return syscall("fsmount", lib.SYS_fsmount, fd, lib.FSMOUNT_CLOEXEC, value, what=(fd, value))
    except StepError as e:
        raise _with_messages(e, fd) from None


def _with_messages(error: StepError, fd: int) -> StepError:
    """The error with the file system's messages, read from its configuration descriptor (fsopen(2))."""
    messages: list[str] = []
    try:
        is_context = os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[fscontext]"  # never read another file
        while is_context and len(messages) < 8:  # the kernel keeps eight
            messages.append(os.read(fd, 4096).decode(errors="replace").strip()[2:])  # after the level: "e "
    except OSError:
        pass  # ENODATA: no more messages; EBADF, which is then the error itself
    return StepError(error.errno or 0, error.call, hint="; ".join(messages) or error.hint)


def mount_setattr(
    dirfd: int,
    target: StrPath = "",
    *,
    attr_set: int | str = 0,
    attr_clr: int | str = 0,
    propagation: int | str = 0,
    userns_fd: int | None = None,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) of ``target`` below ``dirfd``; with "", of the mount of the descriptor ``dirfd``.

    ``userns_fd`` makes the mount an ID-mapped mount (MOUNT_ATTR_IDMAP); the mount must then be detached."""
    flags = (lib.AT_EMPTY_PATH if not os.fspath(target) else 0) | (lib.AT_RECURSIVE if recursive else 0)
    values = (number(attr_set), number(attr_clr), number(propagation), userns_fd or 0)
    idmap = 0 if userns_fd is None else lib.MOUNT_ATTR_IDMAP
    attr = MOUNT_ATTR.pack(values[0] | idmap, *values[1:])
    what = (os.fspath(target) or dirfd, *values)
    syscall("mount_setattr", lib.SYS_mount_setattr, dirfd, path(target), flags, attr, len(attr), what=what)


def statfs_type(target: StrPath | int) -> int:
    """f_type of statfs(2), or of fstatfs(2) for a descriptor: compare with ``constants.CGROUP2_SUPER_MAGIC`` ..."""
    buffer = bytearray(512)  # struct statfs is smaller everywhere; f_type is its first word
    if isinstance(target, int):
        syscall("fstatfs", lib.SYS_fstatfs, target, buffer, what=(target,))
    else:
        syscall("statfs", lib.SYS_statfs, path(target), buffer, what=(os.fspath(target),))
    return int(struct.unpack_from("=Q", buffer)[0])


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


def is_kernel_filesystem(target: StrPath | int) -> bool:
    """Whether the kernel generates the file: opening it can have side effects, or disclose the host's state."""
    return statfs_type(target) in KERNEL_FILESYSTEMS


def mountinfo(pid: int | str = "self") -> list[MountInfo]:
    """The mounts in the mount namespace of a process."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return [parse_mountinfo(line) for line in f]


def parse_mountinfo(line: str) -> MountInfo:
    """Parse one line; ValueError if it is malformed."""
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
    if "\\" not in text:
        return text
    import re

    data = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8) & 0xFF]), text.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "surrogateescape")

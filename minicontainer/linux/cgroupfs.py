"""Where control groups are: the cgroup mounts, this process's own cgroup, the hierarchy of each controller.

Read-only lookups in ``/proc/self/mountinfo``, ``/proc/self/cgroup`` and ``/proc/cgroups`` (proc(5), cgroups(7)).
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import suppress
    from typing import NamedTuple
else:
    from minicontainer.light import suppress
    from minicontainer.records import NamedTuple

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

UNIFIED_HINT = "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all"
MOUNT_HINT = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


class CgroupMount(NamedTuple):
    """One mounted hierarchy: ``version`` 1 or 2, its ``path``, the cgroup that is its ``root``, its ``options``."""

    version: int
    path: str
    root: str
    options: tuple[str, ...]


class Absence(NamedTuple):
    """Why cgroup v2 lacks a controller, and the remedy."""

    reason: str
    hint: str


# cgroups(7): names of controllers in version 1, and the kernel options they need.
V1_NAMES = {"io": "blkio"}
KERNEL_OPTIONS = {
    "memory": "CONFIG_MEMCG",
    "cpu": "CONFIG_CGROUP_SCHED",
    "cpuset": "CONFIG_CPUSETS",
    "io": "CONFIG_BLK_CGROUP",
    "pids": "CONFIG_CGROUP_PIDS",
}


def parse_mounts(mountinfo: str) -> list[CgroupMount]:
    """The cgroup mounts among the lines of ``/proc/PID/mountinfo``, in the order of mounting."""
    parsed = []
    for line in mountinfo.splitlines():
        mount, separator, filesystem = line.partition(" - cgroup")
        if not separator:
            continue
        fields, kind = mount.split(" "), filesystem.split(" ")
        version = 2 if kind[0] == "2" else 1
        parsed.append(CgroupMount(version, _unescape(fields[4]), _unescape(fields[3]), tuple(kind[-1].split(","))))
    return parsed


def mounts() -> list[CgroupMount]:
    """The cgroup mounts in this process's mount namespace."""
    return parse_mounts(_proc("self/mountinfo"))


def unified() -> CgroupMount:
    """The cgroup v2 mount to use, preferably one of the whole hierarchy.

    Hybrid hosts have it at ``/sys/fs/cgroup/unified``. Raises UnsupportedError if there is none.
    """
    usable = [mount for mount in mounts() if mount.version == 2 and os.path.exists(mount.path + "/cgroup.procs")]
    if not usable:
        raise UnsupportedError("cgroup v2", None, "no cgroup2 file system is mounted here", MOUNT_HINT)
    return next((mount for mount in usable if mount.root == "/"), usable[0])


def parse_membership(text: str) -> str | None:
    """The cgroup v2 path in ``/proc/PID/cgroup`` (the line ``0::/path``), or None."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
    return None


def membership() -> str:
    """The directory of this process's own cgroup v2, below ``unified()``.

    Raises UnsupportedError if it is outside the mount (which belongs to another cgroup namespace).
    """
    mount = unified()
    path = parse_membership(_proc("self/cgroup")) or "/"
    root = mount.root.rstrip("/")
    if path != root and not path.startswith(root + "/"):
        raise UnsupportedError("cgroup", path, f"is not below what is mounted at {mount.path}", "mount cgroup2 anew")
    return (mount.path.rstrip("/") + path[len(root) :]).rstrip("/")


def has(controller: str) -> bool:
    """Whether version 2 has the controller: whether the root's ``cgroup.controllers`` lists it."""
    with open(f"{unified().path}/cgroup.controllers", encoding="utf-8") as file:
        return controller in file.read().split()


def absence(controller: str) -> Absence:
    """Why ``controller`` is not in the root's ``cgroup.controllers``: it is bound to version 1, switched off, or not
    built."""
    return explain_absence(controller, mounts(), _optional("cgroups"))


def explain_absence(controller: str, mounted: list[CgroupMount], table: str) -> Absence:
    """``absence``, from the mounts and the text of ``/proc/cgroups``."""
    name = V1_NAMES.get(controller, controller)
    for mount in mounted:
        if mount.version == 1 and name in mount.options:
            return Absence(f"the {controller} controller is bound to cgroup v1 at {mount.path}", UNIFIED_HINT)
    for line in table.splitlines():
        fields = line.split()
        if fields[:1] != [name] or len(fields) != 4:
            continue
        if fields[1] != "0":
            return Absence(f"the {controller} controller is bound to cgroup v1, hierarchy {fields[1]}", UNIFIED_HINT)
        if fields[3] == "0":
            hint = f"boot without cgroup_disable={name}, or with cgroup_enable={name}"
            return Absence(f"the {controller} controller is switched off", hint)
        return Absence(
            f"the {controller} controller is not enabled in this part of the hierarchy",
            f"echo +{controller} into cgroup.subtree_control from the root down",
        )
    return Absence(
        f"the {controller} controller is missing from this kernel",
        f"a kernel with {KERNEL_OPTIONS.get(controller, 'it')}",
    )


def _unescape(path: str) -> str:
    if "\\" not in path:
        return path
    import re

    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _proc(name: str) -> str:
    try:
        with open(f"/proc/{name}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        raise UnsupportedError("cgroup v2", f"/proc/{name}", "does not exist", "mount -t proc proc /proc") from None


def _optional(name: str) -> str:
    try:
        return _proc(name)
    except UnsupportedError:
        return ""  # since 6.13 kernels without version 1 need not have it


def walk(fd: int) -> Iterator[int]:
    """Descriptors of the cgroup and all its descendants, one open at a time: the nesting can be deep."""
    current = os.dup(fd)
    try:
        left = [_directories(current)]
        yield current
        while left:
            name = left[-1].pop() if left[-1] else ".."
            try:
                entered = os.open(name, DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                continue  # removed meanwhile
            os.close(current)
            current = entered
            if name == "..":
                left.pop()
            else:
                left.append(_directories(current))
                yield current
    finally:
        os.close(current)


def _directories(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def wait(fd: int, wanted: bytes, timeout: float) -> bool:
    """Wait until cgroup.events has the line ``wanted``; False after ``timeout`` seconds.

    The kernel signals changes by POLLPRI, but at most every 10 ms (cgroup_file_notify); hence the short polls first."""
    import select

    events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        end, nap = time.monotonic() + timeout, 0.0005
        while wanted not in os.pread(events, 256, 0):
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(nap, left) * 1000)
            nap = min(nap * 2, 1.0)
        return True
    finally:
        os.close(events)


def remove_children(fd: int) -> None:
    """rmdir(2) of all descendants, leaves first, with one open descriptor: the nesting can be deep."""
    current, names = os.dup(fd), list[str]()
    try:
        while True:
            child = _first_directory(current)
            if child is None and not names:
                return
            try:
                entered = os.open(child or "..", DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                if child is None:
                    raise
                continue  # removed by another process
            os.close(current)
            current = entered
            if child is None:
                with suppress(FileNotFoundError):
                    os.rmdir(names.pop(), dir_fd=current)
            else:
                names.append(child)
    finally:
        os.close(current)


def _first_directory(fd: int) -> str | None:
    try:
        with os.scandir(fd) as entries:
            return next((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), None)
    except FileNotFoundError:
        return None  # removed meanwhile


class ignore_removed:
    """Ignore the errors of a cgroup that another process has removed meanwhile: its files are missing (ENOENT), or open
    files have lost their node (kernfs: ENODEV)."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENODEV)

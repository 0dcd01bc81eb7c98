"""The container's /proc and /sys: new file systems of its own namespaces, what of them is hidden, and what read-only.

All of it is done by descriptors that were there before ROOTFS was entered: no name in it, and nobody who can write to
it, can put anything else in their place (CVE-2025-31133, CVE-2025-52881).
"""

from __future__ import annotations

import errno

from minicontainer import plan as p
from minicontainer.container.filesystem.mounting import CLONE, MADE, NODE, take_fs
from minicontainer.container.host import Host
from minicontainer.container.network import ping
from minicontainer.plan import FDCWD, Builder, Slot
from minicontainer.spec import Spec

PROC, SYS = Slot("proc"), Slot("sys")


def take(b: Builder, spec: Spec, host: Host) -> None:
    """A new proc needs the pid namespace to be ours, a new sysfs the network namespace; else the host's are shown."""
    safe = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC|MOUNT_ATTR_NODEV"
    read_only = "" if spec.privileged else "|MOUNT_ATTR_RDONLY"
    own = host.in_host_userns
    if own or spec.pid != "host":
        take_fs(b, "proc", "proc", safe)
    else:
        b.add(p.open_tree("/proc", f"{CLONE}|AT_RECURSIVE", "proc"))
        b.add(p.mount_setattr(PROC, "", safe, recursive=True))
    if own or spec.network != "host":
        take_fs(b, "sysfs", "sys", safe + read_only)
    else:
        b.add(p.open_tree("/sys", f"{CLONE}|AT_RECURSIVE", "sys"))
        b.add(p.mount_setattr(SYS, "", safe + read_only, recursive=True))
    if spec.cgroupns != "host" and host.cgroup2:
        take_fs(b, "cgroup2", "cgroup", safe + read_only)


def take_masks(b: Builder, spec: Spec) -> None:
    """The null device over files, an empty file system over directories."""
    if not spec.privileged:
        b.add(p.open_tree("/dev/null", CLONE, "null"), p.mount_setattr(Slot("null"), "", NODE))
        take_fs(b, "tmpfs", "empty", "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC", mode="0")


def attach_proc(b: Builder, spec: Spec, host: Host) -> None:
    """/proc, what of it is set (sysctls), hidden and read-only."""
    b.phase = "/proc"
    b.add(p.mkdirat(FDCWD, "/proc", 0o555, tolerate=MADE), p.move_mount(PROC, "/proc"))
    if host.ping:
        ping.allow(b, host.ping, PROC)
    for key, value in spec.sysctls.items():
        path, fd = "sys/" + key.replace(".", "/"), Slot(f"sysctl-{key}")
        b.add(p.openat(path, "O_WRONLY|O_CLOEXEC", fd, at=PROC), p.write(fd, value), p.close(fd))
    if host.userns != "range":
        set_oom_score(b, spec, "self/oom_score_adj", PROC)
    if spec.privileged:
        return
    _mask(b, "/proc", PROC, host)
    for name in (path.removeprefix("/proc/") for path in host.read_only):
        tree = Slot("read-only")
        b.add(
            p.open_tree(name, f"{CLONE}|AT_RECURSIVE", tree, at=PROC),
            p.mount_setattr(tree, "", "MOUNT_ATTR_RDONLY", recursive=True),
            p.move_mount(tree, name, PROC),
        )


def set_oom_score(b: Builder, spec: Spec, path: str, at: Slot | p.Const) -> None:
    """The one asked for, else 0; where the caller's is worse and may not be bettered (proc(5)), it stays."""
    fd = Slot("oom_score_adj")
    tolerate = (errno.EACCES,) if spec.oom_score_adj is None else ()
    opened = p.openat(path, "O_WRONLY|O_CLOEXEC", fd, at=at)
    b.add(opened._replace(tolerate=tolerate, skip=2 if tolerate else 0))
    b.add(p.write(fd, str(spec.oom_score_adj or 0), tolerate=tolerate), p.close(fd))


def attach_sys(b: Builder, spec: Spec, host: Host) -> None:
    """/sys, with the container's cgroups, and what of it is hidden."""
    b.phase = "/sys"
    b.add(p.mkdirat(FDCWD, "/sys", 0o555, tolerate=MADE), p.move_mount(SYS, "/sys"))
    if spec.cgroupns != "host" and host.cgroup2:
        b.add(p.move_mount(Slot("cgroup"), "fs/cgroup", SYS))
    if not spec.privileged:
        _mask(b, "/sys", SYS, host)


def _mask(b: Builder, top: str, at: Slot, host: Host) -> None:
    """The first of a kind is attached itself: until Linux 6.15 what is detached cannot be copied."""
    seen: set[bool] = set()
    for path, is_directory in host.masked:
        mask = Slot("empty" if is_directory else "null")
        if path.startswith(f"{top}/"):
            if is_directory in seen:
                b.add(p.open_tree("", f"{CLONE}|AT_EMPTY_PATH", "mask", at=mask))
                mask = Slot("mask")
            b.add(p.move_mount(mask, path.removeprefix(f"{top}/"), at))
        seen.add(is_directory)

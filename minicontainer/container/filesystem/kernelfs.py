"""The container's /proc and /sys: new file systems of its own namespaces, with masked and read-only paths.

Every step uses descriptors from before pivot_root, so neither a name in ROOTFS nor a process that can write to ROOTFS
can substitute another file (CVE-2025-31133, CVE-2025-52881).
"""

from __future__ import annotations

import errno

from minicontainer import plan as p
from minicontainer.container.filesystem.mounting import CLONE, EXISTING, NODE, create_fs
from minicontainer.container.network import ping
from minicontainer.plan import FDCWD, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.host import Host
    from minicontainer.plan import Builder
    from minicontainer.spec import Spec

PROC, SYS = Slot("proc"), Slot("sys")
SAFE = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC|MOUNT_ATTR_NODEV"


def prepare(b: Builder, spec: Spec, host: Host) -> None:
    """Creates proc, sysfs and cgroup2 as detached mounts. In a user namespace, a new proc needs a pid namespace of the
    container's own, a new sysfs a network namespace; else the host's are bind-mounted."""
    read_only = "" if spec.privileged else "|MOUNT_ATTR_RDONLY"
    prepare_proc(b, spec, host)
    if host.in_host_userns or spec.network != "host":
        create_fs(b, "sysfs", "sys", SAFE + read_only)
    else:
        b.add(p.open_tree("/sys", f"{CLONE}|AT_RECURSIVE", "sys"))
        b.add(p.mount_setattr(SYS, "", SAFE + read_only, recursive=True))
    if spec.cgroupns != "host" and host.cgroup2:
        create_fs(b, "cgroup2", "cgroup", SAFE + read_only)


def prepare_proc(b: Builder, spec: Spec, host: Host) -> None:
    """Creates proc, as a detached mount."""
    if host.in_host_userns or spec.pid != "host":
        create_fs(b, "proc", "proc", SAFE)
    else:
        b.add(p.open_tree("/proc", f"{CLONE}|AT_RECURSIVE", "proc"))
        b.add(p.mount_setattr(PROC, "", SAFE, recursive=True))


def prepare_masks(b: Builder, spec: Spec, host: Host) -> None:
    """Opens the mounts that mask paths: the null device for files, an empty tmpfs for directories."""
    if host.masked and not spec.privileged:
        b.add(p.open_tree("/dev/null", CLONE, "null"), p.mount_setattr(Slot("null"), "", NODE))
        create_fs(
            b, "tmpfs", "empty", "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC", mode="0"
        )


def make_mount_points(b: Builder) -> None:
    """Makes /dev, /proc and /sys where they are missing: for a guest, which sees a read-only root."""
    b.phase = "root"
    for path, mode in (("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555)):
        b.add(p.mkdirat(FDCWD, path, mode, tolerate=EXISTING))


def attach_proc(b: Builder, spec: Spec, host: Host) -> None:
    """Attaches /proc, writes sysctls, masks paths and makes paths read-only."""
    b.phase = "/proc"
    b.add(p.mkdirat(FDCWD, "/proc", 0o555, tolerate=EXISTING), p.move_mount(PROC, "/proc"))
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
    """Writes ``spec.oom_score_adj``, by default 0. The default is not enforced: a higher score of the caller stays
    where the caller may not lower it (proc(5))."""
    fd = Slot("oom_score_adj")
    tolerate = (errno.EACCES,) if spec.oom_score_adj is None else ()
    step = p.openat(path, "O_WRONLY|O_CLOEXEC", fd, at=at)
    b.add(step._replace(tolerate=tolerate, skip=2 if tolerate else 0))
    b.add(p.write(fd, str(spec.oom_score_adj or 0), tolerate=tolerate), p.close(fd))


def attach_sys(b: Builder, spec: Spec, host: Host) -> None:
    """Attaches /sys and /sys/fs/cgroup, and masks paths."""
    b.phase = "/sys"
    b.add(p.mkdirat(FDCWD, "/sys", 0o555, tolerate=EXISTING), p.move_mount(SYS, "/sys"))
    if spec.cgroupns != "host" and host.cgroup2:
        b.add(p.move_mount(Slot("cgroup"), "fs/cgroup", SYS))
    if not spec.privileged:
        _mask(b, "/sys", SYS, host)


def _mask(b: Builder, top: str, at: Slot, host: Host) -> None:
    """Mounts the null device or the empty tmpfs on each masked path below ``top``.

    Each is attached first, and copied for later paths: until Linux 6.15 a detached mount cannot be copied."""
    attached: set[bool] = set()
    for path, is_directory in host.masked:
        mask = Slot("empty" if is_directory else "null")
        if path.startswith(f"{top}/"):
            if is_directory in attached:
                b.add(p.open_tree("", f"{CLONE}|AT_EMPTY_PATH", "mask", at=mask))
                mask = Slot("mask")
            b.add(p.move_mount(mask, path.removeprefix(f"{top}/"), at))
        attached.add(is_directory)

"""The mounts that this host supports: the mount API, proc in a new pid namespace, overlays, ID-mapped mounts."""

from __future__ import annotations

import errno
import os
from functools import partial

from minicontainer import plan as p
from minicontainer.doctor.findings import Probe, Verdict, no, ok
from minicontainer.doctor.trial import held, mount_flags, own_map, private, walk
from minicontainer.errors import StepError
from minicontainer.linux.userns import is_root
from minicontainer.plan import FDCWD, Slot, Step

TREE = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE"
PLACE = "/proc"  # an existing directory, which a tmpfs covers in the probe's mount namespace


def probes(directory: str) -> list[Probe]:
    """``directory``: a ROOTFS, whose file system is examined."""
    path = os.path.abspath(directory)
    return [
        Probe("mount API", mount_api, needed=True),
        Probe("proc", proc, needed=True),
        Probe("overlay", partial(overlay, path, userns=not is_root())),
        *([Probe("overlay in a user namespace", partial(overlay, path, userns=True))] if is_root() else []),
        Probe("ID-mapped mounts", partial(id_mapped, path)),
    ]


def mount_api() -> Verdict:
    """fsopen, fsconfig, fsmount, move_mount, open_tree, mount_setattr."""
    fs, tree = Slot("fs"), Slot("tree")
    walk(
        [
            *private(),
            p.fsopen("tmpfs", fs),
            p.fsconfig(fs, "mode", "755"),
            p.fsconfig(fs, None),
            p.fsmount(fs, "MOUNT_ATTR_NOSUID", tree),
            p.move_mount(tree, PLACE),
            p.open_tree(PLACE, TREE, "copy"),
            p.mount_setattr(Slot("copy"), "", "MOUNT_ATTR_RDONLY", recursive=True),
        ],
        mount_flags(),
    )
    return ok("fsopen, fsmount, move_mount, open_tree, mount_setattr")


def proc() -> Verdict:
    """Mount proc of a new pid namespace; the kernel refuses it if parts of the visible /proc are masked."""
    fs = Slot("fs")
    steps = [p.fsopen("proc", fs), p.fsconfig(fs, None), p.fsmount(fs, "MOUNT_ATTR_NOSUID", "tree")]
    try:
        walk([*private(), *steps], f"{mount_flags()}|CLONE_NEWPID")
    except StepError as error:
        if error.errno == errno.EPERM:
            reason = "refused, because parts of /proc are masked (is this a container?)"
            return no(reason, "start this container without masking /proc")
        raise
    return ok("of a new pid namespace")


def overlay(path: str, *, userns: bool) -> Verdict:
    """An overlay as of ``run --ephemeral``: ROOTFS is the lower layer, a tmpfs the upper."""
    steps = [*(own_map() if userns else []), *private(), *_overlay(path)]
    try:
        walk(steps, "CLONE_NEWUSER|CLONE_NEWNS" if userns else "CLONE_NEWNS")
    except StepError as error:
        if error.errno == errno.ENODEV:
            return no("the kernel has no overlay file system: no --ephemeral", "as root: modprobe overlay")
        if error.errno == errno.EPERM and userns:
            return no(f"{error.call}: refused in a user namespace: no --ephemeral without root", "Linux 5.11 or later")
        raise
    return ok(f"over {path}")


def _overlay(path: str) -> list[Step]:
    return [
        p.open_tree(path, TREE, "lower"),
        p.mount("tmpfs", PLACE, "tmpfs", "MS_NOSUID|MS_NODEV", "mode=755"),
        p.call("chdir", PLACE),
        *(p.mkdirat(FDCWD, name, 0o755) for name in ("lower", "upper", "work", "merged")),
        p.move_mount(Slot("lower"), "lower"),
        p.mount("overlay", "merged", "overlay", "0", "lowerdir=lower,upperdir=upper,workdir=work"),
        p.mkdirat(FDCWD, "merged/minicontainer-doctor", 0o755),  # goes to the upper layer
    ]


def id_mapped(path: str) -> Verdict:
    """Make an ID-mapped mount of the directory (mount_setattr(2), MOUNT_ATTR_IDMAP)."""
    with held(own_map(), "CLONE_NEWUSER") as holder:
        userns = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        steps = [p.open_tree(path, TREE, "tree"), p.idmap(Slot("tree"), Slot("userns"))]
        walk([*private(), *steps], mount_flags(), {"userns": userns})
    except StepError as error:
        if error.errno == errno.EINVAL:
            return no(
                f"the file system of {path} does not support ID-mapped mounts",
                "ext4, xfs, btrfs, tmpfs since 6.3 ... do",
            )
        if error.errno == errno.EPERM:
            return no(f"refused: the file system of {path} belongs to another user namespace", "as root of the host")
        raise
    finally:
        os.close(userns)
    return ok(f"on the file system of {path}")

"""Steps that make a file system as a detached mount, and attach it to a path of the container."""

from __future__ import annotations

import errno

from minicontainer import plan as p
from minicontainer.native import lib
from minicontainer.plan import Builder, Slot

CLONE = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC"
NODE = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC"  # of what shows a device node
DEV = Slot("dev")  # the tmpfs of /dev, detached
MADE = (errno.EEXIST, errno.EROFS)  # a mount point that is there, or that attaching will miss by name


def take_tmpfs(b: Builder) -> None:
    """The file system of /dev itself, as the slot DEV."""
    take_fs(b, "tmpfs", "dev", "MOUNT_ATTR_NOSUID", mode="755", size="65536k")


def take_fs(b: Builder, fstype: str, name: str, attrs: str, **options: str) -> None:
    """A new file system as a detached mount."""
    fs = Slot(f"fs-{name}")
    b.add(p.fsopen(fstype, fs))
    b.add(*(p.fsconfig(fs, key, value) for key, value in options.items()))
    b.add(p.fsconfig(fs, None), p.fsmount(fs, attrs, name))


def mount_point(path: str, into: str, *, is_file: bool) -> p.Step:
    """A path as a descriptor; what is missing of it is made, also where links lead (csrc/plan/mountpoint.c)."""
    return p.Step("mount_point", (path, int(is_file)), lib.MC_MOUNT_POINT, into=Slot(into))


def mount_on(b: Builder, tree: Slot, path: str, at: str, *, is_file: bool) -> None:
    """Attaches a detached mount to a path of the container, which is made where it is not there (Slot ``at``)."""
    b.add(
        mount_point(path, at, is_file=is_file),
        p.move_mount(tree, "", Slot(at), "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"),
    )

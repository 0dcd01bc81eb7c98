"""Steps that create a file system as a detached mount, and attach it to a path of the container."""

from __future__ import annotations

import errno

from minicontainer import plan as p
from minicontainer.native import lib
from minicontainer.plan import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.plan import Builder

CLONE = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC"
NODE = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC"  # of a bind mount of a device node
DEV = Slot("dev")  # the tmpfs of /dev, a detached mount
EXISTING = (errno.EEXIST, errno.EROFS)  # tolerated by mkdirat: where the mount point is missing, move_mount fails


def create_dev(b: Builder) -> None:
    """Creates the tmpfs of /dev, as the slot DEV."""
    create_fs(b, "tmpfs", "dev", "MOUNT_ATTR_NOSUID", mode="755", size="65536k")


def create_fs(b: Builder, fstype: str, name: str, attrs: str, **options: str) -> None:
    """Creates a file system as a detached mount, as the slot ``name``."""
    fs = Slot(f"fs-{name}")
    b.add(p.fsopen(fstype, fs))
    b.add(*(p.fsconfig(fs, key, value) for key, value in options.items()))
    b.add(p.fsconfig(fs, None), p.fsmount(fs, attrs, name))


def mount_point(path: str, into: str, *, is_file: bool) -> p.Step:
    """Opens a mount point; creates missing directories and files on its path, also behind links
    (csrc/plan/mountpoint.c)."""
    return p.Step("mount_point", (path, int(is_file)), lib.MC_MOUNT_POINT, into=Slot(into))


def mount_on(b: Builder, tree: Slot, path: str, at: str, *, is_file: bool) -> None:
    """Attaches a detached mount to a path of the container, which is created where it is missing. The mount point is
    the slot ``at``."""
    b.add(
        mount_point(path, at, is_file=is_file),
        p.move_mount(tree, "", Slot(at), "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"),
    )

"""``diff``: the files that an ephemeral container has added, changed and deleted, as docker prints them.

Theory of operation. The container writes to the upper layer of an overlay (the kernel's overlayfs.rst): a tmpfs without
a path, of which the monitor holds a descriptor. The upper layer is walked beside ROOTFS, the lower layer, by
descriptors, since the container is hostile. A deleted file is a character device 0:0 ("whiteout"); a directory that
hides the lower one ("opaque") has an extended attribute.
"""

from __future__ import annotations

import os
import posixpath
import stat

from minicontainer.detached.paths import verified
from minicontainer.errors import Error, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack, contextmanager
    from typing import NamedTuple

    from minicontainer.detached.client import Client
    from minicontainer.spec import Spec
else:
    from minicontainer.light import ExitStack, contextmanager
    from minicontainer.records import NamedTuple

ADDED, CHANGED, DELETED = "A", "C", "D"
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")  # the second in a user namespace
DEPTH = 200  # nested directories: each takes two descriptors
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOUNTED = ("/dev", "/proc", "/sys")  # mount points of every container


class Change(NamedTuple):
    """``kind``: A added, C changed, D deleted."""

    kind: str
    path: str


class _Level(NamedTuple):
    """A directory of both layers; ``lower`` is -1 if only the upper layer has the directory."""

    upper: int
    lower: int
    path: str = "/"
    is_opaque: bool = False
    depth: int = 0


def changes(container: Client) -> list[Change]:
    """All changes, by path. Error if the container is not ephemeral, or does not run."""
    container.refuse_image("diff")
    spec = container.config.spec
    if not spec.ephemeral:
        raise Error(f"diff {container.id[:12]}: is not ephemeral: its writes go to ROOTFS itself, {spec.rootfs}")
    with upper_layer(container, "diff") as upper, ExitStack() as stack:
        lower = os.open(spec.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, lower)
        changed = sorted(_walk(_Level(upper, lower)), key=lambda change: change.path.split("/"))
    return list(_without_mount_points(changed, spec))


@contextmanager
def upper_layer(container: Client, what: str) -> Iterator[int]:
    """A descriptor of the upper layer of the current run: its process 1 lived before and after the open. ``what`` is
    the command."""
    state, prefix = container.state, f"{what} {container.id[:12]}"
    if state.process is None or state.monitor is None or not state.is_running:
        raise Error(f"{prefix}: is not running ({state.status}): what it wrote is gone")
    if state.upper is None:
        raise Error(f"{prefix}: its monitor has nothing of what it wrote")
    with verified(state.process, prefix):
        fd = os.open(f"/proc/{state.monitor.pid}/fd/{state.upper}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _walk(level: _Level) -> Iterator[Change]:
    """The changes in a directory."""
    names, below = set(os.listdir(level.upper)), set(os.listdir(level.lower)) if level.lower >= 0 else set()
    if level.is_opaque:
        yield from (Change(DELETED, posixpath.join(level.path, name)) for name in below - names)
    for name in names:
        path = posixpath.join(level.path, name)
        if (status := _stat(level.upper, name)) is None:
            continue  # it was removed meanwhile
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            yield from [Change(DELETED, path)] if name in below else []
            continue
        yield Change(CHANGED if name in below else ADDED, path)
        if stat.S_ISDIR(status.st_mode):
            yield from _enter(level, name)


def _enter(level: _Level, name: str) -> Iterator[Change]:
    """The changes in a subdirectory."""
    path = posixpath.join(level.path, name)
    if level.depth == DEPTH:
        raise Error(sentence("diff", path, f"is below more than {DEPTH} directories"))
    with ExitStack() as stack:
        try:
            upper = os.open(name, DIRECTORY, dir_fd=level.upper)
        except (FileNotFoundError, NotADirectoryError):
            return  # it was replaced meanwhile
        stack.callback(os.close, upper)
        lower = -1
        if level.lower >= 0 and (status := _stat(level.lower, name)) is not None and stat.S_ISDIR(status.st_mode):
            lower = os.open(name, DIRECTORY, dir_fd=level.lower)
            stack.callback(os.close, lower)
        yield from _walk(_Level(upper, lower, path, level.is_opaque or _is_opaque(upper), level.depth + 1))


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_opaque(directory: int) -> bool:
    for name in OPAQUE:
        try:
            if os.getxattr(directory, name) == b"y":
                return True
        except OSError:
            pass  # no such attribute
    return False


def _without_mount_points(changed: list[Change], spec: Spec) -> Iterator[Change]:
    """Leaves out mount points, which the start creates, and their parent directories if these have no other change."""
    points = {*MOUNTED, *(posixpath.normpath(mount.target) for mount in spec.mounts)}
    ancestors = {parent for point in points for parent in _parents(point)}
    changed = [change for change in changed if change.path not in points]
    with_changes = {parent for change in changed if change.path not in ancestors for parent in _parents(change.path)}
    return (
        change
        for change in changed
        if change.path not in ancestors or change.path in with_changes or change.kind == DELETED
    )


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path

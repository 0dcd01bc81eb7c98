"""``diff``: what an ephemeral container has added, changed and deleted, as docker tells it.

Theory of operation. What it writes goes to the upper layer of an overlay (the kernel's overlayfs.rst), a tmpfs that no
path leads to any more: its monitor keeps a descriptor of it. That is walked beside ROOTFS, which is the lower layer; by
descriptors, since who writes there is hostile. What was deleted is a character device 0:0; a directory that hides what
is below it ("opaque") is marked by an attribute.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minicontainer.detached.paths import held_by
from minicontainer.errors import Error, sentence

if TYPE_CHECKING:
    from minicontainer.detached.client import Handle
    from minicontainer.spec import Spec

ADDED, CHANGED, DELETED = "A", "C", "D"
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")  # the latter in a user namespace
DEPTH = 200  # directories in directories: two descriptors are open for each
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MADE = ("/dev", "/proc", "/sys")  # what every container has mounted on it


class Change(NamedTuple):
    """``kind``: A added, C changed, D deleted."""

    kind: str
    path: str


class _Level(NamedTuple):
    """A directory of both layers; ``lower`` is -1 where it is in the upper one alone."""

    upper: int
    lower: int
    path: str = "/"
    is_opaque: bool = False
    depth: int = 0


def changes(container: Handle) -> list[Change]:
    """All of them, by path. Error where it is not ephemeral, or does not run."""
    spec = container.config.spec
    if not spec.ephemeral:
        raise Error(f"diff {container.id[:12]}: is not ephemeral: its writes go to ROOTFS itself, {spec.rootfs}")
    with upper_layer(container, "diff") as upper, ExitStack() as stack:
        lower = os.open(spec.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, lower)
        found = sorted(_walk(_Level(upper, lower)), key=lambda change: change.path.split("/"))
    return list(_without_mount_points(found, spec))


@contextmanager
def upper_layer(container: Handle, what: str) -> Iterator[int]:
    """The upper layer, to be read. That of this run: its process was there before and after it was opened. ``what`` is
    for errors."""
    state, who = container.state, f"{what} {container.id[:12]}"
    if state.process is None or state.monitor is None or not state.is_running:
        raise Error(f"{who}: is not running ({state.status}): what it wrote is gone")
    if state.upper is None:
        raise Error(f"{who}: its monitor has nothing of what it wrote")
    with held_by(state.process, who):
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
        if (seen := _look(level.upper, name)) is None:
            continue  # it has gone meanwhile
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0:
            yield from [Change(DELETED, path)] if name in below else []
            continue
        yield Change(CHANGED if name in below else ADDED, path)
        if stat.S_ISDIR(seen.st_mode):
            yield from _enter(level, name)


def _enter(level: _Level, name: str) -> Iterator[Change]:
    """The changes in a directory of a directory."""
    path = posixpath.join(level.path, name)
    if level.depth == DEPTH:
        raise Error(sentence("diff", path, f"is below more than {DEPTH} directories"))
    with ExitStack() as stack:
        try:
            upper = os.open(name, DIRECTORY, dir_fd=level.upper)
        except (FileNotFoundError, NotADirectoryError):
            return  # it is another by now
        stack.callback(os.close, upper)
        lower = -1
        if level.lower >= 0 and (seen := _look(level.lower, name)) is not None and stat.S_ISDIR(seen.st_mode):
            lower = os.open(name, DIRECTORY, dir_fd=level.lower)
            stack.callback(os.close, lower)
        yield from _walk(_Level(upper, lower, path, level.is_opaque or _is_opaque(upper), level.depth + 1))


def _look(directory: int, name: str) -> os.stat_result | None:
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
            pass  # it has none
    return False


def _without_mount_points(found: list[Change], spec: Spec) -> Iterator[Change]:
    """Without what was made for mounts before the container began: mount points, and directories on the way to them
    that hold nothing else."""
    points = {*MADE, *(posixpath.normpath(mount.target) for mount in spec.mounts)}
    way = {parent for point in points for parent in _parents(point)}
    found = [change for change in found if change.path not in points]
    busy = {parent for change in found if change.path not in way for parent in _parents(change.path)}
    return (change for change in found if change.path not in way or change.path in busy or change.kind == DELETED)


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path

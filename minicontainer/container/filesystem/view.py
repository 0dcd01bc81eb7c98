"""Path lookup in a container that has not started: ROOTFS with the spec's mounts on it.

Neither ROOTFS nor a volume is trusted. A path is walked name by name, by descriptor; this module resolves links, not
the kernel, and none leads out of the container's mounts (openat2(2), RESOLVE_IN_ROOT, works on one mount tree only).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack, suppress
    from typing import NamedTuple

    from minicontainer.spec import Spec
else:
    from minicontainer.light import ExitStack, suppress
    from minicontainer.records import NamedTuple

LINKS_MAX = 40  # links in one path, as path_resolution(7)
OPEN_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
ROOTFS, KERNEL = -1, -2  # mounts that are not of the spec: the root; /dev, /proc and /sys
KERNEL_PATHS = ("dev", "proc", "sys")  # mounted first, on directories of that name
MISSING = -1  # instead of a descriptor: no such file, or none before the start


class Place(NamedTuple):
    """The result of a lookup: the mount, the path in it without links and ``..``, and a descriptor (O_PATH) or
    MISSING."""

    mount: int
    path: str
    fd: int


class View:
    """The container's mount tree, with descriptors that its ``with`` block closes.

    missing  paths that were looked up in ROOTFS, mount points included, and do not exist"""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._stack = spec, ExitStack()
        self._mounted: dict[tuple[int, str], int] = {}  # (mount, path in it) -> the mount on it
        self.missing: list[str] = []

    def __enter__(self) -> View:
        with ExitStack() as stack:
            self._stack = stack
            self._top = self._open(self._spec.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for path in KERNEL_PATHS:
                self._child(self._root(), path)
                self._mounted[ROOTFS, f"/{path}"] = KERNEL
            for index, mount in enumerate(self._spec.mounts):
                try:
                    place = self.find(os.path.normpath(mount.target))
                except OSError:
                    continue  # it cannot be mounted: the start raises the error
                self._mounted[place.mount, place.path] = index
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def find(self, path: str) -> Place:
        """Looks a path up. OSError where it cannot be resolved (ELOOP, ENOTDIR); a missing file is MISSING."""
        walked, names, links = [self._root()], _names(path), 0
        while names:
            name = names.pop()
            if name == "..":
                walked = walked[:-1] or walked
                continue
            place, link = self._child(walked[-1], name)
            if link is None:
                walked.append(place)
                continue
            links += 1
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            walked = walked[:1] if link.startswith("/") else walked
            names += _names(link)
        return walked[-1]

    def is_mounted_on(self, path: str) -> bool:
        """Whether a mount of the spec covers the path, also where the mount's target names it through links."""
        try:
            place = self.find(path)
        except OSError:
            return False
        return place.mount >= 0 and (place.mount, place.path) in {(m, at) for (_, at), m in self._mounted.items()}

    def _root(self) -> Place:
        return Place(ROOTFS, "/", self._top)

    def _child(self, parent: Place, name: str) -> tuple[Place, str | None]:
        """The entry ``name`` of a directory, with the mounts on it; and its target, where it is a link."""
        mount, path = parent.mount, f"{parent.path.rstrip('/')}/{name}"
        fd = MISSING if parent.fd == MISSING else self._open(name, OPEN_FLAGS, parent.fd)
        link = None if fd == MISSING else _link(fd)
        if link is not None:
            return Place(mount, path, fd), link
        if fd == MISSING and mount == ROOTFS:
            self.missing.append(path)
        while (mount, path) in self._mounted:
            mount = self._mounted[mount, path]
            fd = self._source(mount)
        return Place(mount, path, fd), None

    def _source(self, index: int) -> int:
        source = self._spec.mounts[index].source if index >= 0 else None
        return self._open(source, os.O_PATH | os.O_CLOEXEC) if source else MISSING

    def _open(self, path: str, flags: int, at: int | None = None) -> int:
        try:
            fd = os.open(path, flags, dir_fd=at)
        except FileNotFoundError:
            return MISSING
        self._stack.callback(os.close, fd)
        return fd


def lacks_any(spec: Spec, paths: list[str]) -> bool:
    """Whether a mount point is missing in ROOTFS: one of ``paths``, of the spec's mounts, /dev, /proc or /sys."""
    with View(spec) as view:
        for path in paths:
            with suppress(OSError):
                view.find(path)
        return bool(view.missing)


def _names(path: str) -> list[str]:
    """The names of a path in reverse order."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _link(fd: int) -> str | None:
    """The target of a link; None for another file (readlink(2) by descriptor: ENOENT or EINVAL)."""
    try:
        return os.readlink("", dir_fd=fd)
    except OSError:
        return None

"""The files that a container will see, looked at before it is there: ROOTFS with its mounts in their places.

Nothing of ROOTFS or of a volume is trusted: a path is walked name by name and by descriptor, no link is followed by the
kernel, and none leads out of what the container will have (openat2(2), RESOLVE_IN_ROOT, which knows one tree alone).
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from typing import NamedTuple

from minicontainer.spec import Spec

LINKS = 40  # that are followed, as path_resolution(7) has it
PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
ROOTFS, OURS = -1, -2  # mounts that are none of the spec's: the root; /dev, /proc and /sys
KERNELS = ("dev", "proc", "sys")  # mounted first, on directories of that name
EMPTY = -1  # instead of a descriptor: what is not there, or not yet


class Place(NamedTuple):
    """Where a path leads: the mount, the path without links and ``..``, and what is there (O_PATH), or EMPTY."""

    mount: int
    path: str
    fd: int


class View:
    """That tree, with descriptors that its ``with`` block closes.

    missing  paths of ROOTFS that have been asked for, the mounts' own included, and are not there"""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._stack = spec, ExitStack()
        self._on: dict[tuple[int, str], int] = {}  # what is mounted on a path of another mount
        self.missing: list[str] = []

    def __enter__(self) -> View:
        with ExitStack() as stack:
            self._stack = stack
            self._top = self._open(self._spec.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for path in KERNELS:
                self._below(self._root(), path)
                self._on[ROOTFS, f"/{path}"] = OURS
            for index, mount in enumerate(self._spec.mounts):
                try:
                    place = self.find(os.path.normpath(mount.target))
                except OSError:
                    continue  # it cannot be mounted: the start will say why
                self._on[place.mount, place.path] = index
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def find(self, path: str) -> Place:
        """Where a path leads. OSError: nowhere, as ELOOP and ENOTDIR say; what is missing is EMPTY."""
        way, rest, links = [self._root()], _names(path), 0
        while rest:
            name = rest.pop()
            if name == "..":
                way = way[:-1] or way
                continue
            place, link = self._below(way[-1], name)
            if link is None:
                way.append(place)
                continue
            links += 1
            if links > LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            way = way[:1] if link.startswith("/") else way
            rest += _names(link)
        return way[-1]

    def is_mounted_on(self, path: str) -> bool:
        """Whether it is where one of the spec's mounts is, by whatever name."""
        try:
            place = self.find(path)
        except OSError:
            return False
        return place.mount >= 0 and (place.mount, place.path) in {(m, at) for (_, at), m in self._on.items()}

    def _root(self) -> Place:
        return Place(ROOTFS, "/", self._top)

    def _below(self, parent: Place, name: str) -> tuple[Place, str | None]:
        """What has that name in a directory; with where it leads, if it is a link."""
        mount, path = parent.mount, f"{parent.path.rstrip('/')}/{name}"
        fd = EMPTY if parent.fd == EMPTY else self._open(name, PLACE, parent.fd)
        link = None if fd == EMPTY else _link(fd)
        if link is not None:
            return Place(mount, path, fd), link
        if fd == EMPTY and mount == ROOTFS:
            self.missing.append(path)
        while (mount, path) in self._on:
            mount = self._on[mount, path]
            fd = self._source(mount)
        return Place(mount, path, fd), None

    def _source(self, index: int) -> int:
        source = self._spec.mounts[index].source if index >= 0 else None
        return self._open(source, os.O_PATH | os.O_CLOEXEC) if source else EMPTY

    def _open(self, path: str, flags: int, at: int | None = None) -> int:
        try:
            fd = os.open(path, flags, dir_fd=at)
        except FileNotFoundError:
            return EMPTY
        self._stack.callback(os.close, fd)
        return fd


def lacks_any(spec: Spec, paths: list[str]) -> bool:
    """Whether ROOTFS has not all that is mounted on: these paths, those of the spec's mounts, /dev, /proc and /sys."""
    with View(spec) as view:
        for path in paths:
            with suppress(OSError):
                view.find(path)
        return bool(view.missing)


def _names(path: str) -> list[str]:
    """The names of a path, the first last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _link(fd: int) -> str | None:
    """Where it leads; None for what is no link (readlink(2): ENOENT or EINVAL for it by descriptor)."""
    try:
        return os.readlink("", dir_fd=fd)
    except OSError:
        return None

"""Finds and removes cgroups of containers that have no owner.

The process that started a container, or its monitor, holds the container's ownership lock (registry/ownership.py). Only
a cgroup whose name has the mark of this state directory is looked at: the locks of others are not visible here.
"""

from __future__ import annotations

import errno
import os

from minicontainer import runtime
from minicontainer.container.cgroup import placement
from minicontainer.container.registry import ownership
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup, hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def find() -> list[str]:
    """The paths of the cgroups of this state directory's containers that have no owner."""
    paths = [path for parent in parents() for path in members(parent)]
    return [path for path in paths if not ownership.is_owned(_ident(path))]


def remove(path: str) -> bool:
    """Removes a cgroup of ``find`` with the processes in it; False where it has an owner by now, or is gone."""
    lock = ownership.try_acquire(_ident(path))
    if lock < 0:
        return False
    try:
        Cgroup.open(path).remove(kill=True)
    except StepError as error:
        if error.errno != errno.ENOENT:  # another process has removed it
            raise
        return False
    finally:
        os.close(lock)
    return True


def clean() -> list[str]:
    """Removes all of ``find``; returns the paths that were removed."""
    return [path for path in find() if remove(path)]


def _ident(path: str) -> str:
    return path.rpartition("/")[2][:12]


def parents() -> Iterator[str]:
    """The parent cgroups of this state directory's containers that the caller may write to."""
    try:
        top, own = hierarchy().path, cgroupfs.membership().removesuffix("/" + placement.CALLER)
    except UnsupportedError:
        return
    for base in dict.fromkeys((top, own)):
        parent = f"{base}/{placement.parent_name()}"
        if os.access(parent, os.W_OK, effective_ids=True):
            yield parent


def members(parent: str) -> list[str]:
    """The cgroups in a parent whose names have the mark of this state directory."""
    end, digits = f"-{runtime.mark()}", set("0123456789abcdef")
    return sorted(
        entry.path
        for entry in os.scandir(parent)
        if entry.name.endswith(end) and len(entry.name) == 12 + len(end) and set(entry.name[:12]) <= digits
    )

"""Which processes are a container's: those of its cgroup; where it has none, those of its pid namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minicontainer.errors import Error
from minicontainer.linux import processes
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.cgroupkill import all_processes

if TYPE_CHECKING:
    from minicontainer.detached.client import Handle


@contextmanager
def of(container: Handle, what: str) -> Iterator[tuple[Cgroup | None, list[int]]]:
    """Its cgroup, if it has one, and its processes. Error where it does not run, saying ``what`` was wanted."""
    process = container.needs_running(what).process
    if (cgroup := container.open_cgroup()) is not None:
        with cgroup:
            yield cgroup, of_cgroup(cgroup)
        return
    found = [] if process is None else of_namespace(process.pid)
    if process is None or not process.is_alive():
        raise Error(f"{what} {container.id[:12]}: has just ended")
    yield None, found


def of_cgroup(cgroup: Cgroup) -> list[int]:
    """The processes in it and in the cgroups below it."""
    return [pid for pid in all_processes(cgroup.fd) if pid]


def of_namespace(first: int) -> list[int]:
    """The processes in the pid namespace of ``first``, and all that these have borne (which may be in namespaces of
    their own). In our own namespace (``--pid host``): ``first``, and all that it has borne."""
    here, there = processes.namespace("self", "pid"), processes.namespace(first, "pid")
    parents = processes.parents()
    ours = {first}
    if there not in ("", here):
        ours |= {pid for pid in parents if processes.namespace(pid, "pid") == there}
    for pid in sorted(parents):  # each of the others is asked for the way up from it
        way = []
        while pid in parents and pid not in ours and pid not in way:
            way.append(pid)
            pid = parents[pid]
        if pid in ours:
            ours.update(way)
    return sorted(ours)

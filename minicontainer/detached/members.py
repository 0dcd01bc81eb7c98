"""The processes of a container: those of its cgroup; without a cgroup, those of its pid namespace."""

from __future__ import annotations

from minicontainer.errors import Error
from minicontainer.linux import processes
from minicontainer.linux.cgroupkill import all_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import contextmanager

    from minicontainer.detached.client import Client
    from minicontainer.linux.cgroup import Cgroup
else:
    from minicontainer.light import contextmanager


@contextmanager
def of(container: Client, what: str) -> Iterator[tuple[Cgroup | None, list[int]]]:
    """The cgroup of a container, or None, and the pids. Error if the container does not run; ``what`` is the
    command."""
    process = container.check_running(what).process
    if (cgroup := container.open_cgroup()) is not None:
        with cgroup:
            yield cgroup, of_cgroup(cgroup)
        return
    pids = [] if process is None else of_namespace(process.pid)
    if process is None or not process.is_alive():
        raise Error(f"{what} {container.id[:12]}: has just ended")
    yield None, pids


def of_cgroup(cgroup: Cgroup) -> list[int]:
    """The pids in a cgroup and its descendants."""
    return [pid for pid in all_processes(cgroup.fd) if pid]


def of_namespace(first: int) -> list[int]:
    """The pids in the pid namespace of ``first``, and all descendants of these (which may be in nested namespaces).
    In the caller's own namespace (``--pid host``): ``first`` and its descendants."""
    own, other = processes.namespace("self", "pid"), processes.namespace(first, "pid")
    parents = processes.parents()
    members = {first}
    if other not in ("", own):
        members |= {pid for pid in parents if processes.namespace(pid, "pid") == other}
    for pid in sorted(parents):  # walk up from each process to a member, or to one without a parent
        ancestors = []
        while pid in parents and pid not in members and pid not in ancestors:
            ancestors.append(pid)
            pid = parents[pid]
        if pid in members:
            members.update(ancestors)
    return sorted(members)

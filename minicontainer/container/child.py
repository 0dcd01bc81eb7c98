"""A started container's first process, with the resources that it owns: cgroup, name, ids, lease, descriptors."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from minicontainer.errors import Error
from minicontainer.linux.cgroup import Cgroup
from minicontainer.native import ffi, lib, now
from minicontainer.plan import Plan
from minicontainer.plan.spawn import ParentRun, Spawn
from minicontainer.plan.timeline import Timeline

if TYPE_CHECKING:
    from minicontainer.container.deathsignal import CloneThread
    from minicontainer.container.ids import ranges
    from minicontainer.network.leases import Lease


_abandoned: list[Child] = []  # children without a Popen that run, or are not reaped yet


class Child:
    """The first process of a container, the resources that it owns, and the primitives that created it.

    A Child that is garbage-collected is killed and cleaned up, unless ``disowned``: a signal handler can raise at any
    moment, also before the caller holds the new object.

    ownership      descriptor of the ownership lock (registry/ownership.py), or -1
    helper_output  memfd with the error output of newuidmap, newgidmap or slirp4netns, or -1
    clone_thread   the thread that cloned it, for ``die_with_parent``
    volumes        descriptors that mark its volumes as in use (volumes.hold)"""

    __slots__ = (
        "cgroup",
        "clone_thread",
        "disowned",
        "helper_output",
        "id",
        "ids",
        "lease",
        "name_lock",
        "notes",
        "ownership",
        "parent_run",
        "spawn",
        "terminal",
        "volumes",
    )  # fmt: skip

    def __init__(self, identifier: str, plan: Plan) -> None:
        self.id = identifier
        self.terminal = self.name_lock = self.helper_output = self.ownership = -1
        self.cgroup: Cgroup | None = None
        self.notes: list[tuple[str, str, int, int, int]] = []
        self.ids: ranges.Lease | None = None
        self.lease: Lease | None = None
        self.parent_run: ParentRun | None = None
        self.clone_thread: CloneThread | None = None
        self.volumes: list[int] = []
        self.disowned = False
        self.spawn = Spawn(plan)
        reap_abandoned()

    @property
    def is_running(self) -> bool:
        """Whether every step of the plan, exec included, has succeeded."""
        return self.spawn.pid > 0 and self.spawn.failed is None and self.spawn.interrupted is None

    def timeline(self) -> Timeline:
        """The timeline of every primitive so far."""
        spawn, run = self.spawn, self.parent_run
        parent_plan = None if run is None else (run.plan, bytes(ffi.buffer(run.records)))
        return Timeline(self.notes, spawn.plan, bytes(ffi.buffer(spawn.records)), spawn.struct.end_ns, parent_plan)

    def note(self, phase: str, call: str, start: int, result: int = 0) -> None:
        """Adds one primitive of the parent, which ends now, to the timeline."""
        self.notes.append((phase, call, start, now(), result))

    def release(self) -> None:
        """Releases what a running container owns: its clone thread, its cgroup (killing every process that is left in
        it), its ids, lease, volumes and name."""
        if self.clone_thread is not None and self.clone_thread.is_alive():
            self.clone_thread.join()
        if self.cgroup is not None:
            try:
                self.cgroup.remove(kill=True)
            except BaseException:
                self.hand_over()  # processes are left: their ids and address stay reserved until a clean-up
                raise
            self.cgroup = None
        if self.ids is not None:
            self.ids.release()
            self.ids = None
        if self.lease is not None:
            lease, self.lease = self.lease, None
            self.notes += [("network", *note) for note in lease.release()]
        if self.volumes:
            from minicontainer.container.filesystem import volumes

            volumes.release_all(self.volumes)
        if self.name_lock >= 0:
            from minicontainer.container.registry import names

            fd, self.name_lock = self.name_lock, -1
            names.release(fd)

    def close(self) -> None:
        """Closes the descriptors of this object."""
        self.spawn.close()
        for fd in (self.terminal, self.helper_output, self.ownership):
            if fd >= 0:
                os.close(fd)
        self.terminal = self.helper_output = self.ownership = -1

    def discard(self) -> None:
        """Kills and reaps the process, and releases all that this object owns."""
        self.spawn.kill_and_reap()
        self.release()
        self.close()

    def abandon(self) -> None:
        """Leaves the process running without a Popen: a later start reaps it, as in subprocess."""
        self.disowned = True
        _abandoned.append(self)

    def hand_over(self) -> None:
        """Gives up ownership: this process neither ends the container nor releases its resources."""
        self.disowned = True
        if self.ids is not None:
            self.ids.close()
            self.ids = None
        if self.lease is not None:
            self.lease.close()
            self.lease = None
        for fd in self.volumes:
            os.close(fd)
        self.volumes.clear()
        self.cgroup = None  # not closed: a caller may hold ``Popen.cgroup``
        self.close()

    def __del__(self) -> None:
        if self.disowned:
            self.hand_over()
        else:
            self.discard()


def reap_abandoned() -> None:
    """Reaps the abandoned children that have ended, and releases what they owned."""
    for child in tuple(_abandoned):
        if lib.mc_pidfd_wait(child.spawn.pidfd, 0) == 1:
            try:
                _abandoned.remove(child)
            except ValueError:
                continue  # another thread reaps it
            try:
                child.discard()
            except Error as e:  # not an error of the start that calls this
                warnings.warn(f"container {child.id}: {e}", ResourceWarning, stacklevel=2)


os.register_at_fork(after_in_child=_abandoned.clear)  # they are children of the parent process, which reaps them

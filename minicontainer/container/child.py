"""A started container's first process, with the resources that it owns: cgroup, name, ids, lease, descriptors."""

from __future__ import annotations

import os

from minicontainer.container.placeholders import buffer_with_id, with_id
from minicontainer.errors import Error
from minicontainer.light import warn
from minicontainer.native import ffi, lib, now
from minicontainer.plan.spawn import Spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.container.cgroup.placement import ContainerCgroup, Place
    from minicontainer.container.deathsignal import CloneThread
    from minicontainer.container.ids import ranges
    from minicontainer.container.machine.run import Run
    from minicontainer.linux.cgroup import Cgroup
    from minicontainer.network.leases import Lease
    from minicontainer.plan import Plan
    from minicontainer.plan.spawn import ParentRun
    from minicontainer.plan.timeline import Call, Timeline


USAGE = ffi.typeof("struct mc_usage *")

_abandoned: list[Child] = []  # children without a Popen that run, or are not reaped yet


class Child:
    """The first process of a container, the resources that it owns, and the primitives that created it.

    A Child that is garbage-collected is killed and cleaned up, unless ``disowned``: a signal handler can raise at any
    moment, also before the caller holds the new object.

    namespaces     the CLONE_NEW* flags of its clone3 as they are printed; "" before the clone
    place          its cgroup and ownership lock, until another owns them; None: there is no cgroup
    placed         the struct mc_place, with the records of what made it
    used           struct mc_usage, from the end of process 1 on
    ownership      descriptor of the ownership lock (registry/ownership.py), or -1
    helper_output  memfd with the error output of newuidmap, newgidmap or slirp4netns, or -1
    clone_thread   the thread that cloned it, for ``die_with_parent``
    joined         the plan of a process in a machine that this one stands for, with its records
    machine        the run of its virtual machine, with ``isolation="kvm"``
    volumes        descriptors that mark its volumes as in use (volumes.hold)"""

    __slots__ = (
        "_cgroup",
        "_parent_cgroup",
        "clone_thread",
        "disowned",
        "helper_output",
        "id",
        "ids",
        "joined",
        "lease",
        "machine",
        "name_lock",
        "namespaces",
        "notes",
        "ownership",
        "parent_run",
        "place",
        "placed",
        "released",
        "spawn",
        "terminal",
        "used",
        "volumes",
    )  # fmt: skip

    def __init__(self, identifier: str, plan: Plan) -> None:
        """``plan``: with the placeholder for the id, if there is one."""
        self.id = identifier
        self.terminal = self.name_lock = self.helper_output = self.ownership = -1
        self.place: Place | None = None
        self.placed: Any = None
        self._cgroup: ContainerCgroup | None = None
        self._parent_cgroup: Cgroup | None = None
        self.used: Any = None
        self.namespaces = ""
        self.notes: list[Call] = []
        self.ids: ranges.Lease | None = None
        self.lease: Lease | None = None
        self.parent_run: ParentRun | None = None
        self.clone_thread: CloneThread | None = None
        self.machine: Run | None = None
        self.joined: tuple[Plan, bytes] | None = None
        self.volumes: list[int] = []
        self.disowned = self.released = False
        if identifier:
            self.spawn = Spawn(plan, buffer_with_id(plan, identifier), lambda: with_id(plan, identifier))
        else:
            self.spawn = Spawn(plan)
        if _abandoned:
            reap_abandoned()

    @property
    def is_running(self) -> bool:
        """Whether every step of the plan, exec included, has succeeded."""
        return self.spawn.pid > 0 and self.spawn.succeeded

    def take(self, place: Place | None) -> None:
        """Takes the container's cgroup and ownership lock."""
        if place is not None:  # first: it is what ``release`` looks at, also after an exception of a signal handler
            self.placed, self._parent_cgroup = place.struct, place.home.parent
        self.place = place

    @property
    def cgroup(self) -> ContainerCgroup | None:
        """The container's cgroup; None where it has none, where it is removed, or another owns it."""
        if self.place is None or self.placed.cgroup < 0:
            return None
        if self._cgroup is None:
            self._cgroup = self.place.group
        return self._cgroup

    @property
    def cgroup_path(self) -> str:
        """The path of the cgroup, which may be removed; "" where there was none."""
        if self._parent_cgroup is None:
            return ""
        return f"{self._parent_cgroup.path}/{ffi.string(self.placed.name).decode()}"

    def timeline(self) -> Timeline:
        """The timeline of every primitive so far."""
        from minicontainer.plan.timeline import Timeline

        return Timeline.later(self._timeline)

    def _timeline(self) -> Timeline:
        from minicontainer.container.calls import made
        from minicontainer.plan.timeline import Timeline

        spawn, run = self.spawn, self.parent_run
        others = [] if run is None else [("parent", run.plan, run.written())]
        if self.machine is not None:
            others.append(("guest", self.machine.plan, self.machine.records()))
        if self.joined is not None:
            others.append(("guest", *self.joined))
        return Timeline(made(self), spawn.plan, spawn.written(), spawn.struct.end_ns, others)

    def finish(self) -> int:
        """Reaps process 1, which has ended; reads the usage of its cgroup into ``used``, and removes the cgroup unless
        processes are left or process 1 was killed: ``release`` does it then. Returns 0, or -errno of the reap. A second
        call, by a signal handler during the first, changes nothing."""
        if self.used is None:
            self.used = ffi.new(USAGE)
        if self.place is None:
            result: int = lib.mc_finish(self.spawn.struct, ffi.NULL, 0, self.used)
        else:
            result = lib.mc_finish(self.spawn.struct, self.placed, self.place.home.files, self.used)
        return result

    def note(self, phase: str, call: str, start: int, result: int = 0) -> None:
        """Adds one primitive of the parent, which ends now, to the timeline."""
        self.notes.append((phase, call, start, now(), result))

    def release(self) -> None:
        """Releases what a running container owns: its clone thread, its cgroup (killing every process that is left in
        it), its ids, lease, volumes and name."""
        if self.clone_thread is not None and self.clone_thread.is_alive():
            self.clone_thread.join()
        if self.placed is not None and self.placed.cgroup >= 0:  # else ``finish`` has removed it
            self._remove_cgroup()
        if self.ids is not None:
            ids, self.ids = self.ids, None  # first: after an exception of a signal handler this is called again
            ids.release()
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
        self.released = True

    def _remove_cgroup(self) -> None:
        cgroup = self.cgroup
        if cgroup is None:
            return
        try:
            cgroup.remove(kill=True)
        except BaseException:
            self.hand_over()  # processes are left: their ids and address stay reserved until a clean-up
            raise

    def close(self) -> None:
        """Closes the descriptors of this object."""
        self.spawn.close()
        fds = self.terminal, self.helper_output, self.ownership
        self.terminal = self.helper_output = self.ownership = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        if self.machine is not None:
            self.machine.keep()

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
        if self.place is not None:
            self.place.maker = None
        self.place = self._cgroup = None  # not closed: a caller may hold ``Popen.cgroup``
        self.close()

    def __del__(self) -> None:
        try:
            spawn = self.spawn
        except AttributeError:
            return  # a signal handler raised before it was whole
        if self.disowned:
            self.hand_over()
        elif not self.released or spawn.pidfd >= 0:
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
                warn(f"container {child.id}: {e}", ResourceWarning, 2)


os.register_at_fork(after_in_child=_abandoned.clear)  # they are children of the parent process, which reaps them

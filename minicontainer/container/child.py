"""A started container's process, and what only it needs: its cgroup, its name, the descriptors that stand for it."""

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
    from minicontainer.container.deathsignal import Maker
    from minicontainer.container.ids import ranges
    from minicontainer.network.leases import Lease


_dropped: list[Child] = []  # they run on, though nobody holds their Popen any more


class Child:
    """Who it is, where it lives, what was done to make it.

    Nothing is left of one that is dropped, unless ``disowned``: an exception out of a signal handler can come at any
    moment, also before anybody holds what was made."""

    __slots__ = (
        "cgroup", "claim", "disowned", "id", "ids", "lease", "maker", "name_lock", "notes", "parent_run", "said",
        "spawn", "terminal", "volumes",
    )  # fmt: skip

    def __init__(self, identifier: str, plan: Plan) -> None:
        self.id = identifier
        self.terminal = self.name_lock = self.said = self.claim = -1
        self.cgroup: Cgroup | None = None
        self.notes: list[tuple[str, str, int, int, int]] = []
        self.ids: ranges.Lease | None = None
        self.lease: Lease | None = None
        self.parent_run: ParentRun | None = None
        self.maker: Maker | None = None
        self.volumes: list[int] = []  # in use as long as these are open (volumes.hold)
        self.disowned = False
        self.spawn = Spawn(plan)
        bury_dropped()

    @property
    def is_running(self) -> bool:
        """Whether the plan was walked to its end."""
        return self.spawn.pid > 0 and self.spawn.failed is None and self.spawn.interrupted is None

    def timeline(self) -> Timeline:
        """All that was done until now."""
        spawn, run = self.spawn, self.parent_run
        parent_plan = None if run is None else (run.plan, bytes(ffi.buffer(run.records)))
        return Timeline(self.notes, spawn.plan, bytes(ffi.buffer(spawn.records)), spawn.struct.end_ns, parent_plan)

    def note(self, phase: str, call: str, start: int, result: int = 0) -> None:
        """Notes one primitive of the parent, which has just ended."""
        self.notes.append((phase, call, start, now(), result))

    def release(self) -> None:
        """Gives back what only a living child needs: its cgroup, with whatever is still in it, its ids and its name,
        the thread that it was made by."""
        if self.maker is not None and self.maker.is_alive():
            self.maker.join()
        if self.cgroup is not None:
            try:
                self.cgroup.remove(kill=True)
            except BaseException:
                self.hand_over()  # to who cleans up: what lives on keeps its ids and its address
                raise
            self.cgroup = None
        if self.ids is not None:
            self.ids.release()
            self.ids = None
        if self.lease is not None:
            lease, self.lease = self.lease, None
            self.notes += [("network", *done) for done in lease.release()]
        if self.volumes:
            from minicontainer.container.filesystem import volumes

            volumes.let_go(self.volumes)
        if self.name_lock >= 0:
            from minicontainer.container.registry import names

            fd, self.name_lock = self.name_lock, -1
            names.release(fd)

    def close(self) -> None:
        """Closes the descriptors that stand for it."""
        self.spawn.close()
        for fd in (self.terminal, self.said, self.claim):
            if fd >= 0:
                os.close(fd)
        self.terminal = self.said = self.claim = -1

    def discard(self) -> None:
        """Ends it, and leaves nothing."""
        self.spawn.kill_and_reap()
        self.release()
        self.close()

    def drop(self) -> None:
        """Lets it run, though nobody will wait for it: it is buried by a later start, as subprocess has it."""
        self.disowned = True
        _dropped.append(self)

    def hand_over(self) -> None:
        """It is somebody else's from here on: nothing of it is ended or given back by this process."""
        self.disowned = True
        if self.ids is not None:
            self.ids.leave()
            self.ids = None
        if self.lease is not None:
            self.lease.leave()
            self.lease = None
        for fd in self.volumes:
            os.close(fd)
        self.volumes.clear()
        self.cgroup = None  # not closed: who dropped the container may still hold it
        self.close()

    def __del__(self) -> None:
        if self.disowned:
            self.hand_over()
        else:
            self.discard()


def bury_dropped() -> None:
    """Reaps those that were dropped and have ended, and gives back what was theirs."""
    for child in tuple(_dropped):
        if lib.mc_pidfd_wait(child.spawn.pidfd, 0) == 1:
            try:
                _dropped.remove(child)
            except ValueError:
                continue  # another thread was first
            try:
                child.discard()
            except Error as e:  # no error of the start that happens to come by
                warnings.warn(f"container {child.id}: {e}", ResourceWarning, stacklevel=2)


os.register_at_fork(after_in_child=_dropped.clear)  # they are the parent's, who buries them

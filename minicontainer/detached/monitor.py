"""A container as the child of a monitor of its own (csrc/monitor/), which stays when this process ends.

Theory of operation. All is prepared as for a child of ours (container/start.py); then, instead of a clone, what the
child's clone takes is laid into a memfd (struct mc_monitor in csrc/monitor/shared.h), and the monitor is started with
it and with the descriptors, by a plan too. The monitor walks the plan, and says by a byte that it is done; what came of
it is in the memfd: the same records as a clone of ours leaves, from which an error is explained in the same way.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from minicontainer import plan as p
from minicontainer.container import explain
from minicontainer.container.cgroup import placement
from minicontainer.container.registry import names
from minicontainer.container.registry.orphans import NO_CGROUP
from minicontainer.container.start import Compiled, reusable_inputs
from minicontainer.detached.sharedmemory import Layout, copy_records, sheltered, take_back, written
from minicontainer.errors import Error, StepError
from minicontainer.failpoint import VARIABLE, failpoint
from minicontainer.native import LIBEXEC, ffi, lib
from minicontainer.plan import Plan, Slot
from minicontainer.plan.spawn import Spawn
from minicontainer.spec import Spec, signal_number

if TYPE_CHECKING:
    from minicontainer.container.child import Child
    from minicontainer.detached.records import Config
    from minicontainer.network.leases import Lease

MONITOR = f"{LIBEXEC}/monitor"
FILES = ("helper-output", "hosts-file")  # inputs of a parent-side plan that are descriptors; the others are numbers
POLICIES = {
    "no": lib.MC_NEVER,
    "on-failure": lib.MC_ON_FAILURE,
    "always": lib.MC_ALWAYS,
    "unless-stopped": lib.MC_ALWAYS,
}


class Descriptors:
    """What the monitor inherits. ``place`` gives the number that a descriptor will have there."""

    def __init__(self, told: int, started: int) -> None:
        self.given = [told, started]

    def place(self, fd: int) -> int:
        if fd < 0:
            return -1
        self.given.append(fd)
        return int(lib.MC_SHARED_FD) + len(self.given) - 1


class Monitored:
    """Starts a container under a monitor. ``clone`` is for container.start.start_with."""

    def __init__(
        self, config: Config, *, directory: int, lock: int, names: int, boot: str, linked: Callable[[str, str], None]
    ) -> None:
        """``directory``, its ``lock`` and ``names`` are descriptors; ``linked`` is told the path of the container's
        ``cgroup``, and of its ``lease``."""
        self.config, self.boot, self.linked = config, boot, linked
        self.directory, self.lock, self.names = directory, lock, names

    def clone(self, child: Child, spec: Spec, what: Compiled) -> int:
        """Starts the monitor, waits for its word; the result of its clone. ``child`` is then as after one of ours, but
        no child of this process."""
        failpoint("prepared")
        self.linked("cgroup", NO_CGROUP if child.cgroup is None else child.cgroup.path)
        failpoint("cgroup linked")
        if child.lease is not None:
            self.linked("lease", child.lease.path)
        failpoint("lease linked")
        with ExitStack() as stack:
            memfd = _owned(stack, os.memfd_create("minicontainer", os.MFD_CLOEXEC))
            read, write = os.pipe2(os.O_CLOEXEC)
            _owned(stack, read)
            with os.fdopen(write, "wb", buffering=0):
                given = Descriptors(memfd, write)
                places = {name: given.place(fd) for name, fd in reusable_inputs(spec, what, stack).items()}
                header, layout = self._tell(child, spec, places, given)
                header.spawn.flags = what.flags
                told = written(memfd, header, layout)
                stack.callback(told.close)
                failpoint("memfd filled")
                _spawn(given.given)
                failpoint("monitor made")
            if os.read(read, 1) != b"\1":
                raise Error("monitor: it was killed before the container ran")
            return self._take_back(child, spec, told)

    def _tell(self, child: Child, spec: Spec, places: dict[str, int], given: Descriptors) -> tuple[Any, Layout]:
        """What goes into the memfd."""
        layout, header = Layout("struct mc_monitor"), ffi.new("struct mc_monitor *")
        plan = child.spawn.plan
        layout.walk(header.child, plan, [places.get(name, -1) for name in plan.slots])
        if child.parent_run is not None:
            self._write_parent(header, layout, child, given)
        for name, field in (("stdin", "in"), ("stdout", "out"), ("stderr", "err"), ("report", "report")):
            setattr(header, field, plan.slots[name] if name in plan.inputs else -1)
        header.socket = plan.slots["parent-socket"] if "parent-socket" in plan.inputs else -1
        self._tell_places(header, layout, child, given)
        if child.lease is not None:
            _tell_ending(header, layout, child.lease, given)
        self._tell_wishes(header, spec)
        header.magic, header.size = lib.MC_MONITOR_MAGIC, layout.size
        return header, layout

    def _write_parent(self, header: Any, layout: Layout, child: Child, given: Descriptors) -> None:
        parent_run = child.parent_run
        assert parent_run is not None
        numbers = {name: given.place(n) if name in FILES else n for name, n in parent_run.numbers.items()}
        layout.walk(header.parent, parent_run.plan, [numbers.get(name, -1) for name in parent_run.plan.slots])
        header.shared_slots = layout.put(bytes(ffi.buffer(parent_run.template.shared)))
        header.parent_side.nshared, header.parent_side.ninputs = parent_run.struct.nshared, parent_run.struct.ninputs
        header.parent_side.ready, header.parent_side.go, header.parent_side.answer = parent_run.template.pipe_slots

    def _tell_places(self, header: Any, layout: Layout, child: Child, given: Descriptors) -> None:
        header.directory, header.names = given.place(self.directory), given.place(self.names)
        header.lock = given.place(self.lock)
        given.place(child.ownership)  # held by the monitor as long as that lives
        header.cgroup = header.cgroup_parent = header.ids = -1
        if child.cgroup is not None:
            header.cgroup, header.cgroup_parent = given.place(child.cgroup.fd), given.place(child.cgroup.parent_fd)
            header.cgroup_name = layout.text(child.cgroup.name)
        header.ids_byte = lib.MC_NO_BYTE
        if child.ids is not None:
            header.ids, *_ = map(given.place, child.ids.fds)
            header.ids_byte = lib.MC_NO_BYTE if child.ids.byte is None else child.ids.byte
        header.boot = layout.text(self.boot)

    def _tell_wishes(self, header: Any, spec: Spec) -> None:
        config = self.config
        header.name, header.id = config.name.encode(), config.id.encode()
        for wish, bit in (
            (config.interactive, lib.MC_INTERACTIVE),
            (spec.tty, lib.MC_TERMINAL),
            (config.remove, lib.MC_REMOVE),
            (spec.ephemeral, lib.MC_UPPER),
        ):
            header.flags |= bit if wish else 0
        header.policy, header.retries = policy(config.restart)
        header.stop_signal = signal_number("stop_signal", spec.stop_signal)
        header.stop_timeout_ms, header.timeout_ms = round(spec.stop_timeout * 1000), round(config.timeout * 1000)
        header.log_size, header.log_files = config.log_size, config.log_files

    def _take_back(self, child: Child, spec: Spec, told: mmap.mmap) -> int:
        """What the monitor's clone left, into ``child``. ProgramError where init could not execute the program;
        StepError where nothing could be written of it."""
        with memoryview(told) as view:
            header = ffi.cast("struct mc_monitor *", ffi.from_buffer(view))
            spawn = child.spawn
            ffi.memmove(spawn.struct, ffi.addressof(header.spawn), ffi.sizeof("struct mc_spawn"))
            take_back(spawn, view, header.child.records)
            if child.parent_run is not None:
                child.parent_run.struct.run.failed = header.parent_side.run.failed
                copy_records(child.parent_run.records, view, header.parent.records)
            result, error, unwritten = int(header.result), int(header.program_error), int(header.state_error)
            del header
        run = spawn.struct.run
        spawn.struct.parent = ffi.NULL
        spawn.struct.pidfd = -1
        spawn.struct.reaped = 1  # by the monitor
        spawn.pid, spawn.result = spawn.struct.pid, result
        if unwritten:
            raise StepError(-unwritten, f"write({names.detached(self.config.id)}/state)")
        if error:
            raise explain.program_error(spec, -error, run.program)
        return result


def _tell_ending(header: Any, layout: Layout, lease: Lease, given: Descriptors) -> None:
    """The end of a lease is the monitor's; and so are the locks and sockets, as long as it lives."""
    places = {name: given.place(fd) for name, fd in lease.for_another().items()}
    for fd in lease.held():
        given.place(fd)
    layout.walk(header.release, lease.ending, [places.get(name, -1) for name in lease.ending.slots])


def policy(restart: str) -> tuple[int, int]:
    """enum mc_policy and retries of ``on-failure:3``."""
    word, _, retries = restart.partition(":")
    return POLICIES[word], int(retries or 0)


def _owned(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


_kept: dict[tuple[int, str], Plan] = {}  # plans that start a monitor (a dict's methods are atomic)


def _monitor_plan(count: int, dies_at: str) -> Plan:
    """The monitor with ``count`` descriptors: a session of its own, nobody's child, nothing else inherited."""
    plan = _kept.get((count, dies_at))
    if plan is None:
        names = [f"given-{i}" for i in range(count)]
        steps = [p.fork_child(), p.call("setsid"), *(p.dup3(Slot("null"), number) for number in (0, 1, 2))]
        steps += [p.dup3(Slot(name), lib.MC_SHARED_FD + i) for i, name in enumerate(names)]
        steps += [p.close_range(lib.MC_SHARED_FD + count)]
        env = [f"{VARIABLE}={dies_at}"] if dies_at else []
        steps += [p.execve([MONITOR], ["minicontainer-monitor"], env)]
        plan = _kept[count, dies_at] = Plan(steps, ["null", *names])
    return plan


def _spawn(given: list[int]) -> None:
    """Starts the monitor, in the cgroup of monitors where there is one."""
    opened = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)]
    try:
        for fd in (opened[0], *given):
            opened.append(sheltered(fd, lib.MC_SHARED_FD + len(given)))
        plan = _monitor_plan(len(given), os.environ.get(VARIABLE, ""))
        cgroup = placement.monitors()
        with Spawn(plan) as monitor:
            monitor.start(
                "0", dict(zip(plan.inputs, opened[1:], strict=True)), -1 if cgroup is None else cgroup.birth_fd()
            )
    finally:
        for fd in opened:
            os.close(fd)

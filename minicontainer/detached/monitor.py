"""Starts a container as the child of its monitor (csrc/monitor/), which outlives the caller.

Theory of operation. The container is prepared as for a clone by the caller (container/start.py). Instead of that
clone, its inputs are written to a memfd (struct mc_monitor in csrc/monitor/shared.h), and a plan starts
the monitor with the memfd and the descriptors. The monitor walks the container's plan and writes a byte to a pipe when
the first start is over. The step records are in the memfd: so an error is explained in the same way as after a clone by
the caller."""

from __future__ import annotations

import _signal  # signal imports enum
import os

from minicontainer import plan as p
from minicontainer.container import explain
from minicontainer.container.cgroup import placement
from minicontainer.container.registry import names
from minicontainer.container.registry.orphans import NO_CGROUP
from minicontainer.container.start import reusable_inputs
from minicontainer.detached.client import Client
from minicontainer.detached.sharedmemory import Layout, copy_records, copy_result, dup_above, map_shared
from minicontainer.errors import Error, StepError
from minicontainer.failpoint import VARIABLE, failpoint
from minicontainer.linux.files import owned
from minicontainer.native import LIBEXEC, ffi, lib
from minicontainer.plan import Plan, Slot
from minicontainer.plan.spawn import Spawn
from minicontainer.spec import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack, suppress
    from typing import Any

    from minicontainer.container.child import Child
    from minicontainer.container.compilation import Compiled
    from minicontainer.detached.records import Config
    from minicontainer.network.leases import Lease
    from minicontainer.spec import Spec
else:
    from minicontainer.light import ExitStack, suppress

MONITOR = f"{LIBEXEC}/monitor"
NOTHING: Mapping[str, int] = {}
FILES = ("helper-output", "hosts-file")  # inputs of a parent-side plan that are descriptors; other inputs are numbers
POLICIES = {
    "no": lib.MC_NEVER,
    "on-failure": lib.MC_ON_FAILURE,
    "always": lib.MC_ALWAYS,
    "unless-stopped": lib.MC_ALWAYS,
}


class Descriptors:
    """The descriptors that the monitor inherits. ``add`` returns the number that a descriptor has in the monitor."""

    def __init__(self, shared: int, started: int) -> None:
        self.fds = [shared, started]

    def add(self, fd: int) -> int:
        if fd < 0:
            return -1
        self.fds.append(fd)
        return int(lib.MC_SHARED_FD) + len(self.fds) - 1


class MonitorLauncher:
    """Starts a container under a monitor: ``start.start_with`` takes ``clone`` as its clone function."""

    def __init__(
        self, config: Config, *, directory: int, lock: int, names: int, boot: str, link: Callable[[str, str], None]
    ) -> None:
        """``directory``, its ``lock`` and ``names`` are descriptors; ``link(name, path)`` is called with the paths of
        the container's ``cgroup`` and ``lease``."""
        self.config, self.boot, self.link = config, boot, link
        self.directory, self.lock, self.names = directory, lock, names

    def clone(self, child: Child, spec: Spec, compiled: Compiled, inputs: Mapping[str, int] = NOTHING) -> int:
        """Starts the monitor and waits for the end of the first start; returns the result of the monitor's clone. After
        that ``child`` is as after a clone by this process, but it is a child of the monitor. Each start uses the
        ``inputs`` of the plan again, as those of ``start.reusable_inputs``."""
        failpoint("prepared")
        self.link("cgroup", NO_CGROUP if child.cgroup is None else child.cgroup.path)
        failpoint("cgroup linked")
        if child.lease is not None:
            self.link("lease", child.lease.path)
        failpoint("lease linked")
        with ExitStack() as stack:
            memfd = owned(stack, os.memfd_create("minicontainer", os.MFD_CLOEXEC))
            read, write = os.pipe2(os.O_CLOEXEC)
            owned(stack, read)
            with os.fdopen(write, "wb", buffering=0):
                inherited = Descriptors(memfd, write)
                reusable = {**reusable_inputs(spec, compiled, stack), **inputs}
                numbers = {name: inherited.add(fd) for name, fd in reusable.items()}
                header, layout = self._fill_header(child, spec, numbers, inherited)
                header.spawn.flags = compiled.flags
                shared = map_shared(memfd, header, layout)
                stack.callback(shared.close)
                failpoint("memfd filled")
                _spawn(inherited.fds)
                failpoint("monitor made")
            if self._await(read) != b"\1":
                raise Error("monitor: it was killed before the container ran")
            return self._copy_result(child, spec, shared)

    def _await(self, read: int) -> bytes:
        """The byte that the monitor writes when the first start is over. That of a machine takes time: to interrupt it
        ends the container."""
        try:
            return os.read(read, 1)
        except BaseException:
            with suppress(Error, OSError):
                Client(self.config.id).send_request(lib.MC_REQUEST_STOP, _signal.SIGKILL, 0)
            raise

    def _fill_header(
        self, child: Child, spec: Spec, numbers: dict[str, int], inherited: Descriptors
    ) -> tuple[Any, Layout]:
        """The header of the memfd, and the layout of the rest."""
        layout, header = Layout("struct mc_monitor"), ffi.new("struct mc_monitor *")
        plan = child.spawn.plan
        layout.walk(header.child, plan, [numbers.get(name, -1) for name in plan.slots])
        if child.parent_run is not None:
            self._fill_parent(header, layout, child, inherited)
        for name, field in (("stdin", "in"), ("stdout", "out"), ("stderr", "err"), ("report", "report")):
            setattr(header, field, plan.slots[name] if name in plan.inputs else -1)
        header.socket = plan.slots["parent-socket"] if "parent-socket" in plan.inputs else -1
        self._fill_descriptors(header, layout, child, inherited)
        if child.lease is not None:
            _fill_release(header, layout, child.lease, inherited)
        self._fill_options(header, spec)
        header.guest = -1
        if child.machine is not None:
            header.flags |= lib.MC_ANSWERS
            header.guest, header.guest_oom_kills = numbers["run"], child.machine.OOM_KILLS
        header.magic, header.size = lib.MC_MONITOR_MAGIC, layout.size
        return header, layout

    def _fill_parent(self, header: Any, layout: Layout, child: Child, inherited: Descriptors) -> None:
        parent_run = child.parent_run
        assert parent_run is not None
        numbers = {name: inherited.add(n) if name in FILES else n for name, n in parent_run.numbers.items()}
        layout.walk(header.parent, parent_run.plan, [numbers.get(name, -1) for name in parent_run.plan.slots])
        header.shared_slots = layout.put(bytes(ffi.buffer(parent_run.template.shared)))
        header.parent_side.nshared, header.parent_side.ninputs = parent_run.struct.nshared, parent_run.struct.ninputs
        header.parent_side.ready, header.parent_side.go, header.parent_side.answer = parent_run.template.pipe_slots

    def _fill_descriptors(self, header: Any, layout: Layout, child: Child, inherited: Descriptors) -> None:
        header.directory, header.names = inherited.add(self.directory), inherited.add(self.names)
        header.lock = inherited.add(self.lock)
        inherited.add(child.ownership)  # the ownership lock, as long as the monitor lives
        header.cgroup = header.cgroup_parent = header.ids = -1
        if child.cgroup is not None:
            header.cgroup, header.cgroup_parent = inherited.add(child.cgroup.fd), inherited.add(child.cgroup.parent_fd)
            header.cgroup_name = layout.text(child.cgroup.name)
        header.ids_byte = lib.MC_NO_BYTE
        if child.ids is not None:
            header.ids, *_ = map(inherited.add, child.ids.fds)
            header.ids_byte = lib.MC_NO_BYTE if child.ids.byte is None else child.ids.byte
        header.boot = layout.text(self.boot)

    def _fill_options(self, header: Any, spec: Spec) -> None:
        config = self.config
        header.name, header.id = config.name.encode(), config.id.encode()
        for option, bit in (
            (config.interactive, lib.MC_INTERACTIVE),
            (spec.tty, lib.MC_TERMINAL),
            (config.remove, lib.MC_REMOVE),
            (spec.ephemeral, lib.MC_UPPER),
        ):
            header.flags |= bit if option else 0
        header.policy, header.retries = policy(config.restart)
        header.stop_signal = signal_number("stop_signal", spec.stop_signal)
        header.stop_timeout_ms, header.timeout_ms = round(spec.stop_timeout * 1000), round(config.timeout * 1000)
        header.log_size, header.log_files = config.log_size, config.log_files

    def _copy_result(self, child: Child, spec: Spec, shared: mmap.mmap) -> int:
        """Copies the result of the monitor's clone to ``child``. ProgramError if init could not execute the program;
        StepError if the state file could not be written."""
        with memoryview(shared) as view:
            header = ffi.cast("struct mc_monitor *", ffi.from_buffer(view))
            spawn = child.spawn
            ffi.memmove(spawn.struct, ffi.addressof(header.spawn), ffi.sizeof("struct mc_spawn"))
            copy_result(spawn, view, header.child.records)
            if child.parent_run is not None:
                child.parent_run.struct.run.failed = header.parent_side.run.failed
                copy_records(child.parent_run, view, header.parent.records)
            result, error, unwritten = int(header.result), int(header.program_error), int(header.state_error)
            no_socket = int(header.control_error)
            del header
        spawn.struct.parent = ffi.NULL
        spawn.struct.pidfd = -1
        spawn.struct.reaped = 1  # the monitor reaps it
        spawn.pid, spawn.result = spawn.struct.pid, result
        if no_socket:
            raise StepError(-no_socket, f"bind({names.detached(self.config.id)}/control)")
        if unwritten:
            raise StepError(-unwritten, f"write({names.detached(self.config.id)}/state)")
        if error:
            raise self._explain(child, spec, -error)
        return result

    def _explain(self, child: Child, spec: Spec, number: int) -> Error:
        """The error of a program that could not be executed, or of a machine in which it does not run."""
        if child.machine is None:
            return explain.program_error(spec, number, child.spawn.struct.run.program)
        from minicontainer.container.machine.start import failure

        return failure(child, self.config.spec) or child.machine.failure()


def _fill_release(header: Any, layout: Layout, lease: Lease, inherited: Descriptors) -> None:
    """Describes the release of the lease by the monitor, which inherits the locks and sockets of the lease."""
    numbers = {name: inherited.add(fd) for name, fd in lease.monitor_inputs().items()}
    for fd in lease.lock_fds():
        inherited.add(fd)
    layout.walk(header.release, lease.release_plan, [numbers.get(name, -1) for name in lease.release_plan.slots])


def policy(restart: str) -> tuple[int, int]:
    """enum mc_policy and retries of ``on-failure:3``."""
    name, _, retries = restart.partition(":")
    return POLICIES[name], int(retries or 0)


_plans: dict[tuple[int, str], Plan] = {}  # cached plans that start a monitor (a dict's methods are atomic)


def _monitor_plan(count: int, failpoint_name: str) -> Plan:
    """The plan that starts the monitor with ``count`` descriptors and no others, in a session of its own, as an
    orphan."""
    plan = _plans.get((count, failpoint_name))
    if plan is None:
        names = [f"inherited-{i}" for i in range(count)]
        steps = [p.fork_child(), p.call("setsid"), *(p.dup3(Slot("null"), number) for number in (0, 1, 2))]
        steps += [p.dup3(Slot(name), lib.MC_SHARED_FD + i) for i, name in enumerate(names)]
        steps += [p.close_range(lib.MC_SHARED_FD + count)]
        env = [f"{VARIABLE}={failpoint_name}"] if failpoint_name else []
        steps += [p.execve([MONITOR], ["minicontainer-monitor"], env)]
        plan = _plans[count, failpoint_name] = Plan(steps, ["null", *names])
    return plan


def _spawn(inherited: list[int]) -> None:
    """Starts the monitor, in the cgroup of monitors if there is one."""
    opened = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)]
    try:
        for fd in (opened[0], *inherited):
            opened.append(dup_above(fd, lib.MC_SHARED_FD + len(inherited)))
        plan = _monitor_plan(len(inherited), os.environ.get(VARIABLE, ""))
        cgroup = placement.monitors()
        with Spawn(plan) as monitor:
            monitor.start(
                "0", dict(zip(plan.inputs, opened[1:], strict=True)), -1 if cgroup is None else cgroup.birth_fd()
            )
    finally:
        for fd in opened:
            os.close(fd)

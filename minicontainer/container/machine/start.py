"""Starts a container's program in a virtual machine: the counterpart of container/start.py."""

from __future__ import annotations

import fcntl
import os

from minicontainer.container import compilation, compiler, explain, facts, parent, references, start
from minicontainer.container.cgroup import devices as deviceaccess
from minicontainer.container.facts import CALLER
from minicontainer.container.machine import division, guest, monitor
from minicontainer.container.machine.run import MachineError, Run
from minicontainer.container.program import init
from minicontainer.container.stdio.streams import NAMES
from minicontainer.errors import StepError
from minicontainer.linux.files import sealed_memfd
from minicontainer.linux.processes import check_proc
from minicontainer.microvm import machines
from minicontainer.microvm.devices import ROOT_IMAGE
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack
    from typing import Any, NamedTuple

    from minicontainer.container.child import Child
    from minicontainer.container.compilation import Compiled
    from minicontainer.container.network.veth import Endpoint
    from minicontainer.errors import Error
    from minicontainer.microvm.devices import Device
    from minicontainer.network.record import Network
    from minicontainer.plan import Plan
    from minicontainer.spec import Spec

    Clone = Callable[[Child, Spec, Compiled, dict[str, int]], int]  # with the inputs; returns the result of mc_spawn
else:
    from minicontainer.light import ExitStack
    from minicontainer.records import NamedTuple

KVM = "/dev/kvm"
BOOT_MAX = 300  # seconds


def start_machine(
    spec: Spec,
    stdio: tuple[int, int, int],
    identifier: str = "",
    prepared: Callable[[Child], object] = lambda _: None,
    listener: int = -1,
) -> Child:
    """Starts the machine of ``spec`` with three descriptors as the program's streams; returns when the program runs.
    ``identifier`` is as for ``start.start_with``; ``prepared`` is called before the clone. ``listener``: a listening
    Unix socket, by which the guest can be reached (detached/vsock.py); -1: it cannot.

    SpecError: a field that a machine cannot honour; UnsupportedError: no KVM, no kernel; ProgramError: the program
    cannot be executed; MachineError: the guest has ended before; StepError: a primitive failed."""
    with ExitStack() as stack:
        child, report = boot(spec, stdio, stack, identifier, prepared, listener=listener)
        try:
            _await_report(report)
            if (error := failure(child, spec)) is not None:
                raise error
        except BaseException:
            child.discard()
            raise
    return child


def boot(
    spec: Spec,
    stdio: tuple[int, int, int],
    stack: ExitStack,
    identifier: str = "",
    prepared: Callable[[Child], object] = lambda _: None,
    *,
    listener: int = -1,
) -> tuple[Child, int]:
    """``start_machine`` that returns while the machine boots, with the pipe of its monitor's report, which ``stack``
    closes."""
    read, write = os.pipe2(os.O_CLOEXEC)
    stack.callback(os.close, read)
    with ExitStack() as opened:
        opened.callback(os.close, write)

        def clone(child: Child, outer: Spec, compiled: Compiled, own: dict[str, int]) -> int:
            prepared(child)
            inputs = dict(zip(NAMES, stdio, strict=True)) | own | {"report": _above(write, opened)}
            child.spawn.struct.streams = compiled.streams
            with ExitStack() as others:  # ends after the clone
                inputs.update(start.extra_inputs(child, outer, compiled, others))
                return start.clone_with(child, outer, compiled, inputs)

        return _start(spec, clone, identifier, CALLER, _Given(opened, listener)), read


def _await_report(pipe: int) -> None:
    """Waits for a report, or for the end of the monitor. MachineError: no boot takes so long."""
    import select

    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    if not waiting.poll(BOOT_MAX * 1000):
        raise MachineError("machine", f"its program does not run after {BOOT_MAX} s")


def start_with(spec: Spec, clone: Clone, identifier: str, exe: str, listener: int) -> Child:
    """``start.start_with``, whose ``clone`` function gets the inputs of the outer plan too, and waits until the program
    runs. The executable ``exe`` walks the plan; ``listener`` is as for ``start_machine``."""
    with ExitStack() as stack:
        child = _start(spec, clone, identifier, exe, _Given(stack, listener))
    assert child.machine is not None
    child.machine.keep()
    return child


class _Given(NamedTuple):
    """``stack`` closes the descriptors of the inputs; ``listener`` is as for ``start_machine``."""

    stack: ExitStack
    listener: int


def _start(spec: Spec, clone: Clone, identifier: str, exe: str, given: _Given) -> Child:
    """Starts the outer container."""
    stack, listener = given
    division.check(spec)
    spec = references.resolve(spec)
    inside, link = facts.gather(spec), _link(spec, create=True)
    devices = division.devices(spec, is_reachable=listener >= 0)
    plan, inputs = guest.compile(spec, inside, link.endpoint), _inputs(spec, devices, stack)
    if listener >= 0:
        inputs["vsock"] = _above(listener, stack)

    def with_run(child: Child, outer: Spec, compiled: Compiled) -> int:
        address = 0 if child.lease is None else child.lease.address_number
        child.machine = run = Run(guest.start(plan, spec, inside, child.id, address), plan)
        stack.callback(run.close)
        return clone(child, outer, compiled, {**inputs, "run": _above(run.fd, stack)})

    return start.start_with(
        division.outer(spec), with_run, identifier, lambda outer: _compile(outer, devices, link, exe)
    )


def compile(spec: Spec) -> tuple[Spec, Compiled, Plan]:
    """The spec of the monitor's container, compiled, and the guest's plan. Nothing is made."""
    division.check(spec)
    outer, link = division.outer(spec), _link(spec, create=False)
    compiled = _compile(outer, division.devices(spec, is_reachable=True), link)
    return outer, compiled, guest.compile(spec, facts.gather(spec), link.endpoint)


class Link(NamedTuple):
    """The network that a machine joins (None: none, or an ordinary user's), and the endpoint on it."""

    network: Network | None = None
    endpoint: Endpoint | None = None


def _link(spec: Spec, *, create: bool) -> Link:
    if not spec.attached:
        return Link()
    from minicontainer.container.network import attach, usernet

    network, endpoint = attach.endpoint_of(spec, create=create)
    return Link(network, usernet.for_guest(endpoint, spec.ports) if endpoint.program else endpoint)


def _inputs(spec: Spec, devices: Sequence[Device], stack: ExitStack) -> dict[str, int]:
    """The inputs of the outer plan that every start of the spec has. ``stack`` closes them."""
    machine = machines.make(spec.kernel, division.memory(spec), division.cpus(spec), devices)
    for fd in machine.files:
        stack.callback(os.close, fd)
    data = sealed_memfd("minicontainer-machine", machine.data)
    stack.callback(os.close, data)
    kvm = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, kvm)
    files = [*machine.files, *[data] * lib.MC_VMM_FILES]  # a plan has the same inputs for all machines
    given = {"kvm": kvm, "machine": data, **{f"file-{i}": files[i] for i in range(lib.MC_VMM_FILES)}}
    given["program"] = init.cached(monitor.PROGRAM)
    if spec.root_image is not None:
        given[ROOT_IMAGE] = _root_image(spec, stack)
    return {name: _above(fd, stack) for name, fd in given.items()}


def _root_image(spec: Spec, stack: ExitStack) -> int:
    from minicontainer.container.machine import rootimage

    fd = rootimage.open_image(spec)
    stack.callback(os.close, fd)
    return fd


def _above(fd: int, stack: ExitStack) -> int:
    """A copy of a descriptor above the streams of the monitor."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, monitor.FIRST_FREE)
    stack.callback(os.close, copy)
    return copy


def _compile(outer: Spec, devices: Sequence[Device], link: Link, exe: str = CALLER) -> Compiled:
    """Compiles the outer spec, as compilation.compile_spec does a container's."""
    check_proc()
    host_facts = facts.gather(outer, exe, link.endpoint)
    plan = monitor.compile(outer, host_facts, devices)
    parent_plan = parent.template(outer, host_facts, plan)
    return compilation.Compiled(
        host=host_facts,
        plan=plan,
        flags=compiler.clone_flags(outer, host_facts),
        parent_plan=parent_plan,
        common_inputs=3 + (len(parent_plan.names) if parent_plan is not None else 0),
        allowed_devices=deviceaccess.rules(outer, host_facts),
        network=link.network,
        streams=0 if outer.tty else plan.slots["stdin"] + 1,
        caller=None,
        rootfs=os.fsencode(outer.rootfs),
        exe=exe,
    )


# ---- errors


def failure(child: Child, spec: Spec) -> Error | None:
    """The error of a machine in which the program does not run."""
    run = child.machine
    assert run is not None
    if run.struct.started:
        return None
    if not run.struct.failed:
        return run.failure()
    return guest_error(spec, run.plan, run.struct.failure, run.text, run.console)


def guest_error(spec: Spec, plan: Plan, failure: Any, text: str, console: str = "") -> Error:
    """The error of a ``plan`` that a guest could not walk. ``failure``: struct mc_guest_failed, with its ``text``."""
    step = plan.steps[failure.step] if 0 <= failure.step < len(plan.steps) else None
    if failure.kind in (lib.MC_GUEST_STEP_FAILED, lib.MC_GUEST_EXEC_FAILED):
        if failure.kind == lib.MC_GUEST_EXEC_FAILED or (step is not None and step.op == lib.MC_EXEC):
            return explain.program_error(spec, failure.error, failure.program)
        if step is not None:
            return explain.step_error(division.of_guest(spec), step, failure.error)
    if failure.kind == lib.MC_GUEST_CLONE_FAILED:
        return StepError(failure.error, "clone3 in the guest")
    if failure.kind == lib.MC_GUEST_STEP_ENDED and step is not None:
        ended = f"the guest's {step.describe()} has ended with status {failure.status}"
        return MachineError("machine", ended, console)
    return MachineError("machine", f"{text}: {os.strerror(failure.error).lower()}", console)

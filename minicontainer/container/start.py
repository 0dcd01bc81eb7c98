"""From a spec to a running child: host facts, plan, descriptors, cgroup, clone; and the error where a step failed.

Theory of operation. ``start`` creates the child's cgroup, opens the descriptors that the child needs in an ExitStack,
and calls ``mc_spawn``, which returns when the child has exec'd or ended. The step records then show which step failed,
if any. Everything that was created for a failed child is removed before the error is raised.
"""

from __future__ import annotations

import errno
import os
from _thread import get_native_id

from minicontainer.container import compiler, host, parent
from minicontainer.container.cgroup import devices, limits
from minicontainer.container.child import Child
from minicontainer.container.compilation import Compiled, compile_spec
from minicontainer.container.ids import idmapped
from minicontainer.container.program import execute
from minicontainer.container.registry import ownership
from minicontainer.container.stdio.streams import NAMES
from minicontainer.errors import IsolationWarning, RangeRefusedError, SpecError, StepError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.light import warn
from minicontainer.native import lib, now
from minicontainer.plan.spawn import ParentRun
from minicontainer.records import replace
from minicontainer.spec.limits import NO_LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from typing import Any

    from minicontainer.errors import Error
    from minicontainer.spec import Spec

    Clone = Callable[[Child, Spec, "Compiled"], int]  # clones the child; returns the result of mc_spawn
    Compile = Callable[[Spec], "Compiled"]
else:
    from minicontainer.light import ExitStack

USERNS_REFUSED = "a process in a chroot gets no user namespace; else a seccomp filter or a security module forbids it"


def start(spec: Spec, stdio: tuple[int, int, int]) -> Child:
    """Starts the container of ``spec`` with three descriptors as its streams (ignored with ``spec.tty``).

    Raises SpecError, UnsupportedError, StepError (a primitive failed) or ProgramError (the program cannot be executed).
    IsolationWarning: the container runs in the host's user namespace, since this host cannot give it one of its own."""
    return start_with(spec, lambda child, spec, compiled: clone_child(child, spec, compiled, stdio))


def start_with(spec: Spec, clone: Clone, identifier: str = "", compile: Compile | None = None) -> Child:
    """``start`` with another ``clone`` function. With an ``identifier`` (12 hex digits) the caller has reserved the
    container's name and volumes; else they are reserved here. ``compile``: instead of ``compile_spec``."""
    compile = compile or compile_spec
    volumes: tuple[str, ...] = ()
    if spec.mounts or spec.network != "none":
        from minicontainer.container import references

        volumes, spec = spec.volumes if not identifier else (), references.resolve(spec)
    fallback: Spec | None = spec.__dict__.get("_fallback")
    if fallback is None:
        try:
            return _start(spec, compile(spec), clone, identifier, volumes)
        except RangeRefusedError as refused:
            if spec.userns not in (None, "auto"):
                raise
            warn(f"userns {refused.value}: {refused.reason}; running as --userns host", IsolationWarning, 2)
        fallback = replace(spec, userns="host")
        object.__setattr__(spec, "_fallback", fallback)
    return _start(fallback, compile(fallback), clone, identifier, volumes)


def _start(spec: Spec, compiled: Compiled, clone: Clone, identifier: str, volumes: tuple[str, ...]) -> Child:
    child_id = identifier or os.urandom(6).hex()
    child = Child(child_id, compiled.plan)
    child.spawn.forgets = spec.__dict__.get("_compiled") is not compiled
    try:
        if spec.name and not identifier:
            from minicontainer.container.registry import orphans

            child.name_lock = orphans.reserve_name(spec.name, child.id)
        if identifier:
            child.ownership = ownership.acquire(identifier)
        if volumes:
            from minicontainer.container.filesystem.volumes import hold

            child.volumes = hold(volumes, child.id)
        _make_cgroup(child, spec, compiled)
        failpoint("cgroup made")
        if compiled.parent_plan is not None:
            inputs = parent.prepare(child, spec, compiled.host, compiled.network)
            child.parent_run = ParentRun(compiled.parent_plan, inputs)
        failpoint("ids taken")
        result = clone(child, spec, compiled)
        if not child.spawn.struct.started:
            explain_failure(child, spec, compiled.host, result)
    except BaseException:
        child.discard()
        raise
    return child


def _make_cgroup(child: Child, spec: Spec, compiled: Compiled) -> None:
    allowed = compiled.allowed_devices
    program = devices.cached(allowed)
    child.take(limits.place(spec.limits, child.id, owned=child.ownership >= 0, devices=program))
    attached = program >= 0 and child.placed is not None and child.placed.records[lib.MC_PLACE_DEVICES].result == 0
    if allowed is not None and not attached:
        _restrict_devices(child, spec, compiled)
    if spec.limits is not NO_LIMITS and child.cgroup is not None:
        limits.apply(child.cgroup, spec.limits, lambda call, start_ns: child.note("cgroup", call, start_ns))


def _restrict_devices(child: Child, spec: Spec, compiled: Compiled) -> None:
    """Attaches the BPF program for devices. In a user namespace it is a second barrier: mknod(2) is refused there, and
    the device nodes of ROOTFS are inert."""
    start_ns = now()
    reason = devices.restrict(child.cgroup, compiled.allowed_devices or ())
    if not reason:
        child.note("cgroup", "bpf(BPF_PROG_ATTACH, {BPF_CGROUP_DEVICE})", start_ns)
        return
    devices.refuse_partial_access(spec, reason)
    if compiled.host.in_host_userns:
        warn(f"devices: the container can use any of which it has a node: {reason}", IsolationWarning, 2)


# ---- the clone


def clone_child(child: Child, spec: Spec, compiled: Compiled, stdio: tuple[int, int, int]) -> int:
    """Clones the container's first process as a child of this process."""
    inputs = dict(zip(NAMES, stdio, strict=True))
    child.spawn.struct.streams = compiled.streams
    if len(compiled.plan.inputs) == compiled.common_inputs:
        return clone_with(child, spec, compiled, inputs)
    with ExitStack() as stack:  # ends after the parent-side plan, if there is one
        inputs.update(extra_inputs(child, spec, compiled, stack))
        return clone_with(child, spec, compiled, inputs)


def clone_with(child: Child, spec: Spec, compiled: Compiled, inputs: dict[str, int]) -> int:
    """Clones the container's first process with all inputs of its plan."""
    flags = compiled.flags
    clone = child.spawn.clone
    if spec.die_with_parent and get_native_id() != os.getpid():
        from minicontainer.container.deathsignal import CloneThread

        child.clone_thread = CloneThread(child.spawn)
        clone = child.clone_thread.clone
    result = clone(flags, inputs, -1 if child.placed is None else child.placed.cgroup, child.parent_run)
    child.namespaces = flags.text
    return result


def reusable_inputs(spec: Spec, compiled: Compiled, stack: ExitStack) -> dict[str, int]:
    """The plan inputs that a restart of the container can use again: namespaces, mount trees, programs. ``stack``
    closes these descriptors."""
    inputs: dict[str, int] = {}
    for field, _ in compiler.JOINS:
        path = spec.joined(field)
        if path:
            inputs[f"ns-{field}"] = _open_namespace(field, getattr(spec, field), path, stack)
    if compiled.host.userns == "join" and compiled.host.idmapped:
        inputs.update(idmapped.take_trees(spec, inputs["ns-userns"], stack))
    if {"executable", "init"} & set(compiled.plan.inputs):
        from minicontainer.container.program import init

        inputs.update(init.inputs(spec, compiled.plan, compiled.host.seccomp, stack))
    return inputs


def extra_inputs(child: Child, spec: Spec, compiled: Compiled, stack: ExitStack) -> dict[str, int]:
    """The plan inputs beyond ``Compiled.common_inputs``: the reusable ones, a socket for the terminal, a pipe for the
    report of init (the monitor of a machine reports to container/machine/start.py)."""
    inputs = reusable_inputs(spec, compiled, stack)
    if spec.tty:
        import socket

        own_end, child_end = socket.socketpair()
        stack.callback(receive_terminal, child, own_end, child_end)
        inputs["parent-socket"] = child_end.fileno()
    if "report" in compiled.plan.inputs and child.machine is None:
        import fcntl

        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            inputs["report"] = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, execute.LAST_FD + 1)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        stack.callback(_read_report, child, spec, read, inputs["report"])
    return inputs


def _open_namespace(field: str, value: str, path: str, stack: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise SpecError(field, value, (e.strerror or str(e)).lower(), "a /proc/PID/ns file of a live process") from None
    stack.callback(os.close, fd)
    return fd


def receive_terminal(child: Child, own_end: Any, child_end: Any) -> None:
    """Receives the pty master, which the child sent before its exec, as ``child.terminal``."""
    import socket

    with own_end, child_end:
        if child.is_running:
            _, fds, _, _ = socket.recv_fds(own_end, 1, 1, socket.MSG_DONTWAIT)
            child.terminal = fds[0]
            os.set_inheritable(child.terminal, False)


def _read_report(child: Child, spec: Spec, read: int, write: int) -> None:
    """Reads the report of init. End of file: the program runs; else raises the error of its exec."""
    from minicontainer.container import explain
    from minicontainer.container.program import init

    os.close(write)
    try:
        if child.is_running:
            error, file = init.report(read)
            if error:
                child.spawn.kill_and_reap()
                raise explain.program_error(spec, error, file)
    finally:
        os.close(read)


# ---- errors


def explain_failure(child: Child, spec: Spec, host_facts: host.Host, result: int) -> None:
    """Raises the error of a start that failed; returns where the program runs."""
    if child.spawn.struct.started:
        return
    failed = child.spawn.failed
    waited = failed is None or child.spawn.plan.steps[failed].op == lib.MC_WAIT
    parent_run = child.parent_run
    # A parent-side plan that failed while the child was not waiting for it failed because the child had ended.
    if parent_run is not None and parent_run.failed is not None and waited:
        child.spawn.kill_and_reap()
        raise _parent_error(child, spec, parent_run)
    if result < 0:
        new_userns = host_facts.userns in ("private", "keep-id", "range")
        if new_userns and -result in (errno.EPERM, errno.ENOSPC):
            _check_userns(spec, host_facts, -result)
        call = f"clone3({compiler.clone_flags(spec, host_facts).text})"
        if not child.spawn.struct.start_ns and result == -errno.EMFILE:
            call = "fcntl(F_DUPFD_CLOEXEC), or pipe2(O_CLOEXEC)"
        raise StepError(-result, call, hint=USERNS_REFUSED if new_userns and result == -errno.EPERM else "")
    if failed is None and child.spawn.interrupted is None:
        return
    status = child.spawn.kill_and_reap()
    if failed is None:
        raise child.spawn.error(status)
    step = child.spawn.plan.steps[failed]
    number = -child.spawn.records[failed].result
    from minicontainer.container import explain

    if step.op == lib.MC_EXEC:
        raise explain.program_error(spec, number, child.spawn.struct.run.program)
    raise explain.step_error(spec, step, number)


def _parent_error(child: Child, spec: Spec, parent_run: ParentRun) -> Error:
    """The error of a parent-side plan that failed."""
    from minicontainer.container import explain

    index = parent_run.failed or 0
    number = -parent_run.records[index].result
    step = parent_run.plan.steps[index]
    if step.call == "run":
        from minicontainer.container.ids import mappings
        from minicontainer.container.network import usernet, veth

        return usernet.refusal(child, spec) if step.phase == veth.PHASE else mappings.refusal(child, step)
    return idmapped.refusal(spec, parent_run) or explain.step_error(spec, step, number)


def _check_userns(spec: Spec, host_facts: host.Host, number: int) -> None:
    """Raises the reason why clone3 created no user namespace, where a setting of the host explains it."""
    has_fallback = host_facts.userns == "range" or (host_facts.userns == "private" and host_facts.uid == 0)
    try:
        host.check_userns_allowed()
    except UnsupportedError as e:
        reason = e.reason
        if not has_fallback:
            raise
    else:
        reason = USERNS_REFUSED if number == errno.EPERM else "there may be no more user namespaces"
    if has_fallback:
        raise RangeRefusedError("userns", spec.userns or "auto", reason, "--userns host")

"""From a spec to a running child: facts, plan, descriptors, cgroup, clone; and what went wrong, explained.

Theory of operation. ``start`` gathers what the child needs as descriptors in an ExitStack, makes the cgroup that the
child is born in, and calls ``mc_spawn``, which returns when the child has exec'd or ended. Then the records say how far
it came. Everything that was made for a child that failed is undone before the error is raised.
"""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from _thread import get_native_id
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from minicontainer.container import compiler, facts, host, parent, placeholders, resolving
from minicontainer.container.cgroup import devices, limits
from minicontainer.container.child import Child
from minicontainer.container.facts import CALLER
from minicontainer.container.ids import idmapped
from minicontainer.container.network import veth
from minicontainer.container.program import execute
from minicontainer.container.registry import ownership
from minicontainer.container.streams import for_child
from minicontainer.errors import Error, IsolationWarning, RangeRefusedError, SpecError, StepError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.linux.devices import Rule
from minicontainer.linux.processes import check_proc
from minicontainer.native import lib, now
from minicontainer.plan import Const, Plan
from minicontainer.plan.spawn import ParentPlan, ParentRun
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.network.record import Network

USERNS_REFUSED = "a process in a chroot gets no user namespace; else a seccomp filter or a security module forbids it"


Clone = Callable[["Child", Spec, "Compiled"], int]  # makes the child: what mc_spawn gave


class Compiled(NamedTuple):
    """What a spec is here and now.

    plan, flags  of the child, and of its clone3
    parent_plan  the parent-side plan, where C does it
    given        how many inputs it gives, with the streams: the others are _extra_inputs
    allowed      the devices that it may use; None: any
    network      that it is on"""

    host: host.Host
    plan: Plan
    flags: Const
    parent_plan: ParentPlan | None
    given: int
    allowed: tuple[Rule, ...] | None
    network: Network | None


def compiled(spec: Spec, maker: str = CALLER, *, make: bool = True) -> Compiled:
    """The plan of a spec here and now; with ``make`` a network that is missing is made. A spec is immutable: while the
    facts are the same, so is its plan."""
    cached: Compiled | None = spec.__dict__.get("_compiled")
    if cached is not None and cached.host.is_settled():
        host.check_rootfs(spec.rootfs)
        return cached
    network, wire = _network(spec, make) if spec.attached else (None, None)
    found = facts.gather(spec, maker, wire)
    if cached is None or cached.host != found:
        plan = compiler.compile(spec, found)
        plan.buffer  # noqa: B018 - encodes it now, once
        parent_plan = None
        if compiler.needs_parent_plan(found):
            parent_plan = ParentPlan(parent.plan_of(spec, found), plan)
        given = 3 + (len(parent_plan.names) if parent_plan is not None else 0)
        flags, allowed = compiler.clone_flags(spec, found), devices.rules(spec, found)
        cached = Compiled(found, plan, flags, parent_plan, given, allowed, network)
        object.__setattr__(spec, "_compiled", cached)
    return cached


def _network(spec: Spec, make: bool) -> tuple[Network | None, veth.Wire]:
    from minicontainer.container.network import joining

    return joining.wire_of(spec, make=make)


def start(spec: Spec, stdio: tuple[int, int, int]) -> Child:
    """Starts the container of ``spec`` with three descriptors as its streams (ignored where it has its own terminal).

    Raises SpecError, UnsupportedError, StepError (a primitive failed) or ProgramError (nothing to run).
    IsolationWarning: it has no user namespace, though none was asked for, since this host cannot give it one."""
    return begin(spec, lambda child, spec, what: clone_here(child, spec, what, stdio))


def begin(spec: Spec, clone: Clone, identifier: str = "", maker: str = CALLER) -> Child:
    """``start`` with another way to ``clone``. With an ``identifier`` (12 hex digits) neither its name nor its volumes
    are taken here."""
    check_proc()
    volumes, spec = spec.volumes if not identifier else (), resolving.resolved(spec)
    fallback: Spec | None = spec.__dict__.get("_fallback")
    if fallback is None:
        try:
            return _begin(spec, compiled(spec, maker), clone, identifier, volumes)
        except RangeRefusedError as refused:
            if spec.userns not in (None, "auto"):
                raise
            warnings.warn(f"userns {refused.value}: {refused.reason}; running as --userns host", IsolationWarning, 2)
        fallback = replace(spec, userns="host")
        object.__setattr__(spec, "_fallback", fallback)
    return _begin(fallback, compiled(fallback, maker), clone, identifier, volumes)


def _begin(spec: Spec, what: Compiled, clone: Clone, identifier: str, volumes: tuple[str, ...]) -> Child:
    its_id = identifier or os.urandom(6).hex()
    child = Child(its_id, placeholders.plan_of(what.plan, its_id))
    try:
        if spec.name and not identifier:
            from minicontainer.container.registry import names

            child.name_lock = names.reserve(spec.name, child.id)
        if identifier:
            child.claim = ownership.claim(identifier)
        if volumes:
            from minicontainer.container.filesystem.volumes import hold

            child.volumes = hold(volumes, child.id)
        _make_cgroup(child, spec)
        failpoint("cgroup made")
        if what.allowed is not None:
            _restrict_devices(child, spec, what)
        if what.parent_plan is not None:
            child.parent_run = ParentRun(what.parent_plan, parent.prepare(child, spec, what.host, what.network))
        failpoint("ids taken")
        explain_failure(child, spec, what.host, clone(child, spec, what))
    except BaseException:
        child.discard()
        raise
    return child


def _make_cgroup(child: Child, spec: Spec) -> None:
    begin = now()
    child.cgroup = limits.place(spec.limits, child.id, claimed=child.claim >= 0)
    if child.cgroup is None:
        return
    child.note("cgroup", f'mkdir("{child.cgroup.path}")', begin)
    if spec.limits.pids is None:
        begin = now()
        if call := limits.bound_processes(child.cgroup):
            child.note("cgroup", call, begin)
    if spec.limits:
        limits.apply(child.cgroup, spec.limits, lambda call, begin: child.note("cgroup", call, begin))


def _restrict_devices(child: Child, spec: Spec, what: Compiled) -> None:
    """In a user namespace no node can be made, and those of ROOTFS are inert: there it is a second lock."""
    begin = now()
    reason = devices.restrict(child.cgroup, what.allowed or ())
    if not reason:
        child.note("cgroup", "bpf(BPF_PROG_ATTACH, {BPF_CGROUP_DEVICE})", begin)
        return
    devices.refuse_less(spec, reason)
    if what.host.of_host:
        warnings.warn(f"devices: the container can use any of which it has a node: {reason}", IsolationWarning, 2)


# ---- the clone


def clone_here(child: Child, spec: Spec, what: Compiled, stdio: tuple[int, int, int]) -> int:
    """As a child of this process."""
    opened: list[int] = []
    try:
        inputs = for_child(spec, stdio, opened)
        if len(what.plan.inputs) == what.given:
            return _clone(child, spec, what, inputs)
        with ExitStack() as stack:  # its end is that of the parent-side plan, if there is one
            inputs.update(_extra_inputs(child, spec, what, stack))
            return _clone(child, spec, what, inputs)
    finally:
        for fd in opened:
            os.close(fd)


def _clone(child: Child, spec: Spec, what: Compiled, inputs: dict[str, int]) -> int:
    flags = what.flags
    clone = child.spawn.clone
    if spec.die_with_parent and get_native_id() != os.getpid():
        from minicontainer.container.deathsignal import Maker

        child.maker = Maker(child.spawn)
        clone = child.maker.clone
    result = clone(flags, inputs, -1 if child.cgroup is None else child.cgroup.birth_fd(), child.parent_run)
    cgroup = "|CLONE_INTO_CGROUP" if child.cgroup is not None else ""
    call = f"clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND{cgroup}|{flags.text})"
    struct = child.spawn.struct
    child.notes.append(("clone", call, struct.start_ns, struct.end_ns, result if result < 0 else child.spawn.pid))
    return result


def kept_inputs(spec: Spec, what: Compiled, stack: ExitStack) -> dict[str, int]:
    """What this plan asks for and can have again at another run: namespaces, programs. ``stack`` closes them."""
    found: dict[str, int] = {}
    for field, _ in compiler.JOINS:
        path = spec.joined(field)
        if path:
            found[f"ns-{field}"] = _open_namespace(field, getattr(spec, field), path, stack)
    if what.host.userns == "join" and what.host.shown:
        found.update(idmapped.take_trees(spec, found["ns-userns"], stack))
    if {"executable", "init"} & set(what.plan.inputs):
        from minicontainer.container.program import init

        found.update(init.inputs(spec, what.plan, what.host.seccomp, stack))
    return found


def _extra_inputs(child: Child, spec: Spec, what: Compiled, stack: ExitStack) -> dict[str, int]:
    """What this plan asks for beyond the streams: what is kept, the parent-side plan, the terminal, init's report."""
    found = kept_inputs(spec, what, stack)
    if spec.tty:
        import socket

        ours, theirs = socket.socketpair()
        stack.callback(take_terminal, child, ours, theirs)
        found["parent-socket"] = theirs.fileno()
    if "report" in what.plan.inputs:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            found["report"] = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, execute.LAST_FD + 1)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        stack.callback(_read_report, child, spec, read, found["report"])
    return found


def _open_namespace(field: str, wish: str, path: str, stack: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise SpecError(field, wish, (e.strerror or str(e)).lower(), "a /proc/PID/ns file of a live process") from None
    stack.callback(os.close, fd)
    return fd


def take_terminal(child: Child, ours: Any, theirs: Any) -> None:
    """The other end of the container's pty, which the child sent before it exec'd."""
    import socket

    with ours, theirs:
        if child.is_running:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_DONTWAIT)
            child.terminal = fds[0]
            os.set_inheritable(child.terminal, False)


def _read_report(child: Child, spec: Spec, read: int, write: int) -> None:
    """What init says of the program: end of file when it runs, else why it does not."""
    from minicontainer.container import explain
    from minicontainer.container.program import init

    os.close(write)
    try:
        if child.is_running:
            error, seen = init.report(read)
            if error:
                child.spawn.kill_and_reap()
                raise explain.program_error(spec, error, seen)
    finally:
        os.close(read)


# ---- what went wrong


def explain_failure(child: Child, spec: Spec, facts_here: host.Host, result: int) -> None:
    """Raises what kept the child from becoming the program; nothing where it has."""
    failed = child.spawn.failed
    waited = failed is None or child.spawn.plan.steps[failed].op == lib.MC_WAIT
    parent_run = child.parent_run
    if parent_run is not None and parent_run.failed is not None and waited:  # else it failed since the child had ended
        child.spawn.kill_and_reap()
        raise _parent_error(child, spec, parent_run)
    if result < 0:
        new_userns = facts_here.userns in ("private", "keep-id", "range")
        if new_userns and -result in (errno.EPERM, errno.ENOSPC):
            _check_userns(spec, facts_here, -result)
        call = f"clone3({compiler.clone_flags(spec, facts_here).text})"
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
    """Why the parent-side plan failed."""
    from minicontainer.container import explain

    index = parent_run.failed or 0
    number = -parent_run.records[index].result
    step = parent_run.plan.steps[index]
    if step.call == "run" and step.phase == veth.PHASE:
        from minicontainer.container.network import usernet

        return usernet.refusal(child, spec)
    if step.call == "run":
        from minicontainer.container.ids import mappings

        return mappings.refusal(child, step)
    return idmapped.refusal(spec, parent_run) or explain.step_error(spec, step, number)


def _check_userns(spec: Spec, facts_here: host.Host, number: int) -> None:
    """Why clone3 gave no user namespace, as far as can be told."""
    does_without = facts_here.userns == "range" or (facts_here.userns == "private" and facts_here.uid == 0)
    try:
        host.check_userns_allowed()
    except UnsupportedError as e:
        reason = e.reason
        if not does_without:
            raise
    else:
        reason = USERNS_REFUSED if number == errno.EPERM else "there may be no more user namespaces"
    if does_without:
        raise RangeRefusedError("userns", spec.userns or "auto", reason, "--userns host")

"""From a spec to a running child: facts, plan, descriptors, cgroup, clone; and what went wrong, explained.

Theory of operation. ``start`` gathers what the child needs as descriptors in an ExitStack, makes the cgroup that the
child is born in, and calls ``mc_spawn``, which returns when the child has exec'd or ended. Then the records say how far
it came. Everything that was made for a child that failed is undone before the error is raised.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from minicontainer.container import compiler, host, limits, placement
from minicontainer.container.child import Child
from minicontainer.errors import SpecError, StepError
from minicontainer.native import lib, now
from minicontainer.plan import Const, Plan
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from minicontainer.container.idmap import ParentHalf

USERNS_REFUSED = "a process in a chroot gets no user namespace; else a seccomp filter or a security module forbids it"


def facts(spec: Spec) -> host.Host:
    """Gathers and checks what the compiler needs to know; raises SpecError where ROOTFS, a source ... is amiss."""
    host.check_rootfs(spec.rootfs)
    host.check_time_namespace(spec)
    mode = host.userns_mode(spec)
    maps = None
    if mode in ("private", "keep-id"):
        from minicontainer.container import idmap

        maps = idmap.own_maps(mode)
    identity = host.identity(spec, mode)
    if maps is not None:
        host.check_mapped(spec, identity, maps)
    masked, read_only = host.kernel_paths()
    return host.Host(
        userns=mode,
        uid=os.geteuid(),
        gid=os.getegid(),
        maps=maps,
        identity=identity,
        files=host.check_sources(spec) if spec.mounts else (),
        device_nodes=host.check_devices(spec) if spec.devices else (),
        masked=masked,
        read_only=read_only,
        cgroup2=host.has_cgroup2(),
        seccomp=host.seccomp_program(spec) if spec.seccomp else b"",
        window=host.window() if spec.tty else None,
        permitted=host.permitted(spec, mode),
        chrooted=host.chrooted(mode),
        shm=spec.ipc == "host" and os.path.isdir("/dev/shm"),
        lasting=host.is_lasting(spec, mode),
    )


def compiled(spec: Spec) -> tuple[host.Host, Plan, Const]:
    """The plan of a spec here and now, and clone3's flags. A spec is immutable: while the facts are the same, so is its
    plan."""
    cached: tuple[host.Host, Plan, Const] | None = spec.__dict__.get("_compiled")
    if cached is not None and cached[0].is_settled():
        host.check_rootfs(spec.rootfs)
        return cached
    found = facts(spec)
    if cached is None or cached[0] != found:
        plan = compiler.compile(spec, found)
        plan.buffer  # noqa: B018 - encodes it now, once
        cached = (found, plan, compiler.clone_flags(spec, found))
        object.__setattr__(spec, "_compiled", cached)
    return cached


def start(spec: Spec, stdio: tuple[int, int, int]) -> Child:
    """Starts the container of ``spec`` with three descriptors as its streams (ignored where it has its own terminal).

    Raises SpecError, UnsupportedError, StepError (a primitive failed) or ProgramError (nothing to run)."""
    facts_here, plan, flags = compiled(spec)
    child = Child(os.urandom(6).hex(), plan)
    try:
        if spec.name:
            from minicontainer.container import names

            child.name_lock = names.reserve(spec.name, child.id)
        _make_cgroup(child, spec)
        opened: list[int] = []
        try:
            inputs = _streams(spec, stdio, opened)
            if len(plan.inputs) == len(inputs):
                result = _clone(child, flags, inputs)
            else:
                with ExitStack() as stack:  # its end is that of the parent's half, if there is one
                    inputs.update(_extra_inputs(child, spec, facts_here, stack))
                    result = _clone(child, flags, inputs)
        finally:
            for fd in opened:
                os.close(fd)
        _explain(child, spec, facts_here, result)
    except BaseException:
        child.discard()
        raise
    return child


def _make_cgroup(child: Child, spec: Spec) -> None:
    begin = now()
    try:
        child.cgroup = limits.place(spec.limits, child.id)
    except BaseException:
        placement.discard(child.id)
        raise
    if child.cgroup is None:
        return
    child.note("cgroup", f'mkdir("{child.cgroup.path}")', begin)
    if spec.limits:
        limits.apply(child.cgroup, spec.limits, lambda call, begin: child.note("cgroup", call, begin))


# ---- the clone


def _clone(child: Child, flags: Const, inputs: dict[str, int]) -> int:
    result = child.spawn.clone(flags, inputs, child.cgroup.fd if child.cgroup is not None else -1)
    cgroup = "|CLONE_INTO_CGROUP" if child.cgroup is not None else ""
    call = f"clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND{cgroup}|{flags.text})"
    struct = child.spawn.struct
    child.notes.append(("clone", call, struct.start_ns, struct.end_ns, result if result < 0 else child.spawn.pid))
    return result


def _streams(spec: Spec, stdio: tuple[int, int, int], opened: list[int]) -> dict[str, int]:
    """Above 2, so that putting one in its place never covers another; close-on-exec does not matter there.
    A negative one is /dev/null inside. ``opened`` gets what has to be closed."""
    found = {}
    for name, fd in zip(("stdin", "stdout", "stderr"), stdio, strict=True):
        if fd < 3 and not spec.tty:
            fd = fcntl.fcntl(fd if fd >= 0 else _null(opened), fcntl.F_DUPFD_CLOEXEC, 3)
            opened.append(fd)
        found[name] = fd
    return found


def _null(opened: list[int]) -> int:
    opened.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    return opened[-1]


def _extra_inputs(child: Child, spec: Spec, facts_here: host.Host, stack: ExitStack) -> dict[str, int]:
    """What this plan asks for beyond the streams: namespaces, the parent's half, the terminal, init."""
    found: dict[str, int] = {}
    for field, _ in compiler.JOINS:
        path = spec.joined(field)
        if path:
            found[f"ns-{field}"] = _open_namespace(field, getattr(spec, field), path, stack)
    if facts_here.userns in ("private", "keep-id") and facts_here.maps is None:
        from minicontainer.container import idmap

        mode = facts_here.userns
        half = idmap.ParentHalf(lambda pid: idmap.write_maps(mode, pid), child.spawn.struct)
        stack.callback(_end_half, child, half)
        found.update({"ready": half.ready, "go": half.go, "go-write": half.go_write})
    if spec.tty:
        import socket

        ours, theirs = socket.socketpair()
        stack.callback(_take_terminal, child, ours, theirs)
        found["pty-socket"] = theirs.fileno()
    if spec.init:
        from minicontainer.container import init

        read, write = os.pipe2(os.O_CLOEXEC)
        high = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, compiler.INIT_FD + 1)
        os.close(write)
        stack.callback(_read_report, child, spec, read, high)
        found.update({"init": init.descriptor(), "report": high})
        stack.callback(os.close, found["init"])
    return found


def _open_namespace(field: str, wish: str, path: str, stack: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise SpecError(field, wish, (e.strerror or str(e)).lower(), "a /proc/PID/ns file of a live process") from None
    stack.callback(os.close, fd)
    return fd


def _end_half(child: Child, half: ParentHalf) -> None:
    half.close()
    child.notes += half.notes
    if half.error is not None:
        child.spawn.bury()
        raise half.error


def _take_terminal(child: Child, ours: Any, theirs: Any) -> None:
    """The other end of the container's pty, which the child sent before it exec'd."""
    import socket

    with ours, theirs:
        if child.is_running:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_DONTWAIT)
            child.terminal = fds[0]
            os.set_inheritable(child.terminal, False)


def _read_report(child: Child, spec: Spec, read: int, write: int) -> None:
    """What init says of the program: end of file when it runs, else why it does not."""
    from minicontainer.container import explain, init

    os.close(write)
    try:
        if child.is_running:
            error, seen = init.report(read)
            if error:
                child.spawn.bury()
                raise explain.program_error(spec, error, seen)
    finally:
        os.close(read)


# ---- what went wrong


def _explain(child: Child, spec: Spec, facts_here: host.Host, result: int) -> None:
    """Raises what kept the child from becoming the program; nothing where it has."""
    if result < 0:
        new_userns = facts_here.userns in ("private", "keep-id")
        if new_userns and -result in (errno.EPERM, errno.ENOSPC):
            host.check_userns_allowed()
        call = f"clone3({compiler.clone_flags(spec, facts_here).text})"
        raise StepError(-result, call, hint=USERNS_REFUSED if new_userns and result == -errno.EPERM else "")
    failed = child.spawn.failed
    if failed is None and child.spawn.interrupted is None:
        return
    status = child.spawn.bury()
    if failed is None:
        raise child.spawn.error(status)
    step = child.spawn.plan.steps[failed]
    number = -child.spawn.records[failed].result
    from minicontainer.container import explain

    if step.op == lib.MC_EXEC:
        raise explain.program_error(spec, number, child.spawn.struct.run.program)
    raise explain.step_error(spec, step, number)

"""``exec``: starts another process in a running container, in its namespaces and cgroup, confined as its process 1.

    c.run(["/bin/ps"], capture_output=True)        # as mc.run
    with c.exec(["/bin/sh"], stdin=mc.PIPE) as p:  # as mc.Popen
        ...

Theory of operation. The plan (container/execplan.py) is written to a memfd. A child executes a sealed copy of the
helper csrc/helpers/enter.c, which walks the plan: it clones the process that becomes the program as its sibling
(CLONE_PARENT), which is a child of the caller, and exits. So the container never sees the caller's memory, and the
caller is never under the container's limits."""

from __future__ import annotations

import os

from minicontainer import plan as p
from minicontainer.container import execplan, host, seccomp, start
from minicontainer.container.child import Child
from minicontainer.container.host import Host
from minicontainer.container.ids import users
from minicontainer.container.process import Popen
from minicontainer.container.program import init
from minicontainer.container.stdio.streams import for_helper
from minicontainer.detached.sharedmemory import Layout, copy_result, dup_above, map_shared
from minicontainer.errors import Error
from minicontainer.linux import process
from minicontainer.native import LIBEXEC, ffi, lib
from minicontainer.plan import Plan, Slot
from minicontainer.plan.spawn import Spawn
from minicontainer.spec import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack
    from dataclasses import replace
    from typing import Any, AnyStr, NamedTuple

    from minicontainer.linux.cgroup import Cgroup
    from minicontainer.spec import Spec
else:
    from minicontainer.light import ExitStack
    from minicontainer.records import AnyStr, NamedTuple, replace

ENTER = f"{LIBEXEC}/enter"
KINDS = {  # name in /proc/PID/ns -> CLONE_NEW*
    "user": "CLONE_NEWUSER",
    "mnt": "CLONE_NEWNS",
    "pid": "CLONE_NEWPID",
    "net": "CLONE_NEWNET",
    "uts": "CLONE_NEWUTS",
    "ipc": "CLONE_NEWIPC",
    "cgroup": "CLONE_NEWCGROUP",
    "time": "CLONE_NEWTIME",
}


class ExecPlan(NamedTuple):
    """The plan of a new process in the container whose process 1 is ``pid``, and its compiler's arguments."""

    pid: int
    spec: Spec
    host: Host
    plan: Plan


def exec_plan(base: Spec, pid: int, args: Sequence[str], **options: Any) -> ExecPlan:
    """The plan of ``args``, from the container's spec and other ``options`` (``exec_spec``). The caller has a pidfd of
    ``pid``."""
    spec = exec_spec(base, pid, args, **options)
    namespaces, facts = inspect_process(pid, spec)
    return ExecPlan(pid, spec, facts, execplan.compile(spec, facts, namespaces))


def inspect_process(pid: int, spec: Spec) -> tuple[str, Host]:
    """The namespaces of process 1 that differ from the caller's (CLONE_NEW* by name), and the facts of the
    container."""
    directory = f"/proc/{pid}/ns"
    try:
        others = [kind for kind in KINDS if _link(f"{directory}/{kind}") != _link(f"/proc/self/ns/{kind}")]
        with open(f"/proc/{pid}/setgroups", encoding="utf-8") as f:
            denied = f.read().strip() == "deny"
        with open(f"/proc/{pid}/uid_map", encoding="utf-8") as f:
            has_root = any(line.split()[0] == "0" for line in f)
    except (FileNotFoundError, ProcessLookupError):
        raise Error(f"exec: {_no_namespaces_reason(pid)}") from None
    except PermissionError as e:
        reason = "this process may not: it is not root, or the container was started in another user namespace"
        raise Error(f"exec: {e.filename}: {reason}") from None
    mode = ("join" if has_root else "keep-id") if "user" in others else "host"
    permitted = host.permitted(spec, mode)
    facts = Host(
        userns=mode,
        uid=os.geteuid(),
        gid=os.getegid(),
        maps=None,
        groups=not denied,
        identity=users.identity(spec, "keep-id" if spec.userns == "keep-id" else mode),
        files=(),
        device_nodes=(),
        masked=(),
        read_only=(),
        cgroup2=False,
        seccomp=seccomp.program(spec, permitted),
        suid=seccomp.without_suid() if spec.bars_new_suid else b"",
        window=host.window() if spec.tty else None,
        permitted=permitted,
    )
    return "|".join(KINDS[kind] for kind in others), facts


def _no_namespaces_reason(pid: int) -> str:
    """The reason why a process has no namespaces. It loses them when its main thread exits (exit_task_namespaces), even
    if other threads run: then setns(2) by its pidfd fails with ESRCH. A process that a signal kills loses them too,
    before its state is Z."""
    try:
        stat = process.stat(pid)
        if stat.state in "ZX" and not stat.has_ended:
            return f"the main thread of its process 1 (pid {pid}) has exited: no way leads in (kill, stop)"
    except ProcessLookupError:
        pass
    return "the container has ended"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        if path.endswith("/time"):
            return ""  # before Linux 5.6
        raise


def exec_spec(base: Spec, pid: int, args: Sequence[str], **changes: Any) -> Spec:
    """The spec of the new process: the container's, with those ``changes`` that are not None."""
    env: Mapping[str, str] = changes.pop("env", None) or {}
    overrides = {name: value for name, value in changes.items() if value is not None}
    own = {"mounts": (), "devices": (), "limits": Limits(), "init": False, "executable": None, "ephemeral": False}
    fixed = {"args": tuple(args), "rootfs": f"/proc/{pid}/root", "die_with_parent": False, "name": None}
    return replace(base, **{**own, **fixed, "tty": False, "env": {**base.env, **env}, **overrides})


class Exec(Popen[AnyStr]):
    """A further process in a container. ``kill`` ends this process alone."""

    def __init__(
        self, exec_plan: ExecPlan, process: int, open_cgroup: Callable[[], Cgroup | None], **streams: Any
    ) -> None:
        """``process``: a pidfd of process 1. ``open_cgroup`` opens the container's cgroup, if it has one."""
        self._exec_plan, self._process, self._open_cgroup = exec_plan, process, open_cgroup
        super().__init__(exec_plan.spec, **streams)

    def disown(self) -> None:
        """Leaves the process running; nothing waits for it."""
        if self._child is not None:
            self._child.hand_over()
            self._child = None

    def _start(self, stdio: tuple[int, int, int]) -> Child:
        child = Child("", self._exec_plan.plan)
        try:
            with ExitStack() as stack:
                _run_helper(child, self._inputs(child, stdio, stack), stack)
            start.explain_failure(child, self.spec, self._exec_plan.host, 0)
        except BaseException:
            child.discard()
            raise
        return child

    def _inputs(self, child: Child, stdio: tuple[int, int, int], stack: ExitStack) -> dict[str, int]:
        opened: list[int] = []
        stack.callback(lambda: list(map(os.close, opened)))
        inputs = {**for_helper(self.spec, stdio, opened), "process": self._process, "cgroup": -1}
        if (cgroup := self._open_cgroup()) is not None:
            stack.callback(cgroup.close)
            inputs["cgroup"] = cgroup.birth_fd()
        if self.spec.tty:
            import socket

            own_end, child_end = socket.socketpair()
            stack.callback(start.receive_terminal, child, own_end, child_end)
            inputs["parent-socket"] = child_end.fileno()
        return inputs


def _run_helper(child: Child, inputs: dict[str, int], stack: ExitStack) -> None:
    """Runs the helper, which walks the plan; afterwards ``child`` is as after a clone by this process."""
    spawn, layout, header = child.spawn, Layout("struct mc_enter"), ffi.new("struct mc_enter *")
    plan = spawn.plan
    inherited = list(dict.fromkeys(fd for fd in inputs.values() if fd >= 0))
    numbers = {name: lib.MC_SHARED_FD + 1 + inherited.index(fd) for name, fd in inputs.items() if fd >= 0}
    layout.walk(header.child, plan, [numbers.get(name, -1) for name in plan.slots])
    header.magic, header.size = lib.MC_ENTER_MAGIC, layout.size
    memfd = os.memfd_create("minicontainer", os.MFD_CLOEXEC)
    stack.callback(os.close, memfd)
    shared = map_shared(memfd, header, layout)
    stack.callback(shared.close)
    _spawn_helper(memfd, inherited, stack)
    with memoryview(shared) as view:
        header = ffi.cast("struct mc_enter *", ffi.from_buffer(view))
        ffi.memmove(ffi.addressof(spawn.struct.run), ffi.addressof(header.run), ffi.sizeof("struct mc_run"))
        copy_result(spawn, view, header.child.records)
        del header
    _adopt_child(spawn)


def _spawn_helper(memfd: int, inherited: list[int], stack: ExitStack) -> None:
    """Executes csrc/helpers/enter.c, and waits for its end."""
    opened = []
    for fd in (memfd, *inherited, init.cached(ENTER)):
        opened.append(dup_above(fd, lib.MC_SHARED_FD + 2 + len(inherited)))
        stack.callback(os.close, opened[-1])
    with Spawn(_enter_plan(len(opened) - 1)) as helper:
        helper.start("0", dict(zip(helper.plan.inputs, opened, strict=True)))
        if status := helper.wait():
            raise Error(f"exec: the way in ended with status {status}")


_plans: dict[int, Plan] = {}  # cached by the number of descriptors (a dict's methods are atomic)


def _enter_plan(count: int) -> Plan:
    plan = _plans.get(count)
    if plan is None:
        names = [f"inherited-{i}" for i in range(count)]
        steps = [p.dup3(Slot(name), lib.MC_SHARED_FD + i) for i, name in enumerate(names)]
        steps += [
            p.call("dup3", Slot("program"), lib.MC_SHARED_FD + count, p.const("O_CLOEXEC")),
            p.close_range(lib.MC_SHARED_FD + count + 1),
        ]
        steps += [p.execveat(lib.MC_SHARED_FD + count, ["minicontainer-enter"], [])]
        plan = _plans[count] = Plan(steps, [*names, "program"])
    return plan


def _adopt_child(spawn: Spawn) -> None:
    """Takes over the sibling that the helper has cloned: it is a child of this process."""
    run, struct = spawn.struct.run, spawn.struct
    spawn.pid = struct.pid = run.sibling or -1
    if spawn.pid <= 0:
        struct.reaped = 1
        return
    spawn.pidfd = struct.pidfd = os.pidfd_open(spawn.pid)

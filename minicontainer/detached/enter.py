"""``exec``: another process in a container that runs, in its namespaces and cgroup, confined as its first.

    c.run(["/bin/ps"], capture_output=True)        # as mc.run
    with c.exec(["/bin/sh"], stdin=mc.PIPE) as p:  # as mc.Popen
        ...

Theory of operation. The plan (container/entering.py) is laid into a memfd; a child of ours becomes
csrc/helpers/enter.c, a sealed copy of it, which walks the plan, and ends when the second child, which is ours too
(CLONE_PARENT), has become the program. So nothing of this process is ever seen from inside, and no limit of the
container's is this process's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, AnyStr, NamedTuple

from minicontainer import plan as p
from minicontainer.container import entering, host, seccomp, start
from minicontainer.container.child import Child
from minicontainer.container.host import Host
from minicontainer.container.ids import users
from minicontainer.container.process import Popen
from minicontainer.container.program import init
from minicontainer.container.streams import for_child
from minicontainer.detached.sharedmemory import Layout, sheltered, take_back, written
from minicontainer.errors import Error
from minicontainer.linux import process
from minicontainer.linux.cgroup import Cgroup
from minicontainer.native import LIBEXEC, ffi, lib
from minicontainer.plan import Plan, Slot
from minicontainer.plan.spawn import Spawn
from minicontainer.spec import Limits, Spec

ENTER = f"{LIBEXEC}/enter"
KINDS = {  # of /proc/PID/ns -> CLONE_NEW*
    "user": "CLONE_NEWUSER",
    "mnt": "CLONE_NEWNS",
    "pid": "CLONE_NEWPID",
    "net": "CLONE_NEWNET",
    "uts": "CLONE_NEWUTS",
    "ipc": "CLONE_NEWIPC",
    "cgroup": "CLONE_NEWCGROUP",
    "time": "CLONE_NEWTIME",
}
FIRST = 3  # where csrc/helpers/enter.c has what it is told; its other descriptors follow


class Way(NamedTuple):
    """Into a container whose process 1 is ``pid``: what the new process is, and its plan."""

    pid: int
    spec: Spec
    host: Host
    plan: Plan


def way(base: Spec, pid: int, args: Sequence[str], **wishes: Any) -> Way:
    """Of a container's spec, and of what is wished for otherwise (``spec_of``). ``pid`` is held by a pidfd."""
    spec = spec_of(base, pid, args, **wishes)
    namespaces, facts = look(pid, spec)
    return Way(pid, spec, facts, entering.compile(spec, facts, namespaces))


def look(pid: int, spec: Spec) -> tuple[str, Host]:
    """The namespaces of process 1 that are not ours (CLONE_NEW* by name), and the facts of the container."""
    there = f"/proc/{pid}/ns"
    try:
        others = [kind for kind in KINDS if _link(f"{there}/{kind}") != _link(f"/proc/self/ns/{kind}")]
        with open(f"/proc/{pid}/setgroups", encoding="ascii") as f:
            denied = f.read().strip() == "deny"
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as f:
            has_root = any(line.split()[0] == "0" for line in f)
    except (FileNotFoundError, ProcessLookupError):
        raise Error(f"exec: {_why_not(pid)}") from None
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


def _why_not(pid: int) -> str:
    """A process has no namespaces any more once its main thread has exited (exit_task_namespaces), though others run:
    setns(2) by a pidfd is then ESRCH. A process that a signal kills loses them too, before its state is Z."""
    try:
        found = process.stat(pid)
        if found.state in "ZX" and not found.has_ended:
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


def spec_of(base: Spec, pid: int, args: Sequence[str], **changes: Any) -> Spec:
    """What the new process is: as the first, but for what is asked for otherwise."""
    env: Mapping[str, str] = changes.pop("env", None) or {}
    given = {name: value for name, value in changes.items() if value is not None}
    own = {"mounts": (), "devices": (), "limits": Limits(), "init": False, "executable": None, "ephemeral": False}
    fixed = {"args": tuple(args), "rootfs": f"/proc/{pid}/root", "die_with_parent": False, "name": None}
    return replace(base, **{**own, **fixed, "tty": False, "env": {**base.env, **env}, **given})


class Exec(Popen[AnyStr]):
    """A process in a container; all else is Popen's. ``kill`` ends this process alone."""

    def __init__(self, way_in: Way, process: int, open_cgroup: Callable[[], Cgroup | None], **streams: Any) -> None:
        """``process``: a pidfd of process 1. ``open_cgroup`` opens the container's, where it has one."""
        self._way, self._process, self._open_cgroup = way_in, process, open_cgroup
        super().__init__(way_in.spec, **streams)

    def disown(self) -> None:
        """Lets it run, and forgets it."""
        if self._child is not None:
            self._child.hand_over()
            self._child = None

    def _start(self, stdio: tuple[int, int, int]) -> Child:
        child = Child("", self._way.plan)
        try:
            with ExitStack() as stack:
                _walk(child, self._inputs(child, stdio, stack), stack)
            start.explain_failure(child, self.spec, self._way.host, 0)
        except BaseException:
            child.discard()
            raise
        return child

    def _inputs(self, child: Child, stdio: tuple[int, int, int], stack: ExitStack) -> dict[str, int]:
        opened: list[int] = []
        inputs = {**for_child(self.spec, stdio, opened), "process": self._process, "cgroup": -1}
        for fd in opened:
            stack.callback(os.close, fd)
        if (cgroup := self._open_cgroup()) is not None:
            stack.callback(cgroup.close)
            inputs["cgroup"] = cgroup.birth_fd()
        if self.spec.tty:
            ours, theirs = socket.socketpair()
            stack.callback(start.receive_terminal, child, ours, theirs)
            inputs["parent-socket"] = theirs.fileno()
        return inputs


def _walk(child: Child, inputs: dict[str, int], stack: ExitStack) -> None:
    """Has the plan walked; ``child`` is then as after a clone of ours."""
    spawn, layout, header = child.spawn, Layout("struct mc_enter"), ffi.new("struct mc_enter *")
    plan = spawn.plan
    given = list(dict.fromkeys(fd for fd in inputs.values() if fd >= 0))
    places = {name: FIRST + 1 + given.index(fd) for name, fd in inputs.items() if fd >= 0}
    layout.walk(header.child, plan, [places.get(name, -1) for name in plan.slots])
    header.magic, header.size = lib.MC_ENTER_MAGIC, layout.size
    memfd = os.memfd_create("minicontainer", os.MFD_CLOEXEC)
    stack.callback(os.close, memfd)
    told = written(memfd, header, layout)
    stack.callback(told.close)
    _become(memfd, given, stack)
    with memoryview(told) as view:
        header = ffi.cast("struct mc_enter *", ffi.from_buffer(view))
        ffi.memmove(ffi.addressof(spawn.struct.run), ffi.addressof(header.run), ffi.sizeof("struct mc_run"))
        take_back(spawn, view, header.child.records)
        del header
    _adopt(spawn)


def _become(memfd: int, given: list[int], stack: ExitStack) -> None:
    """Has csrc/helpers/enter.c do it, and waits for its end."""
    opened = []
    for fd in (memfd, *given, init.cached(ENTER)):
        opened.append(sheltered(fd, FIRST + 2 + len(given)))
        stack.callback(os.close, opened[-1])
    with Spawn(_enter_plan(len(opened) - 1)) as helper:
        helper.start("0", dict(zip(helper.plan.inputs, opened, strict=True)))
        if status := helper.wait():
            raise Error(f"exec: the way in ended with status {status}")


_kept: dict[int, Plan] = {}  # by how many descriptors there are (a dict's methods are atomic)


def _enter_plan(count: int) -> Plan:
    plan = _kept.get(count)
    if plan is None:
        names = [f"given-{i}" for i in range(count)]
        steps = [p.dup3(Slot(name), FIRST + i) for i, name in enumerate(names)]
        steps += [
            p.call("dup3", Slot("program"), FIRST + count, p.const("O_CLOEXEC")),
            p.close_range(FIRST + count + 1),
        ]
        steps += [p.execveat(FIRST + count, ["minicontainer-enter"], [])]
        plan = _kept[count] = Plan(steps, [*names, "program"])
    return plan


def _adopt(spawn: Spawn) -> None:
    """The second child, which is ours to wait for."""
    run, struct = spawn.struct.run, spawn.struct
    spawn.pid = struct.pid = run.sibling or -1
    if spawn.pid <= 0:
        struct.reaped = 1
        return
    spawn.pidfd = struct.pidfd = os.pidfd_open(spawn.pid)

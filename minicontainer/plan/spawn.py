"""Runs a plan in a child process, without policy: containers are one use of it.

    from minicontainer import plan as p
    from minicontainer.plan.spawn import Spawn

    with Spawn(p.Plan([p.sethostname("box"), p.execve(["/bin/hostname"], ["hostname"], [])])) as child:
        child.start("CLONE_NEWUTS")
        print(child.wait())

A child whose plan does not end with an exec exits with 0 after the last step.
"""

from __future__ import annotations

import errno
import os

from minicontainer.errors import SpecError, StepError
from minicontainer.native import check, ffi, lib
from minicontainer.plan.encoding import EXECS
from minicontainer.plan.language import Plan, const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from minicontainer.plan.timeline import Timeline


def _fill(slots: Any, plan: Plan, inputs: Mapping[str, int], others: tuple[str, ...] = ()) -> None:
    """Writes the inputs to the first slots of a run; C fills those of ``others``."""
    for i, name in enumerate(plan.inputs):
        if name in inputs:
            slots[i] = inputs[name]
        elif name not in others:
            raise SpecError("plan input", name, "was not given", "inputs maps each name to a descriptor")


def walk(plan: Plan, inputs: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Walks a plan in the calling thread, without a child; after a failed step it continues with the next one. Returns
    the calls that were made, each with its start and end (nanoseconds) and its result or -errno."""
    spawn, first = Spawn(plan), 0
    run = ffi.addressof(spawn.struct, "run")
    _fill(run.slots, plan, inputs)
    while lib.mc_plan_walk_from(run, first) < 0:
        first = run.failed + 1
    calls = []
    for i, step in enumerate(plan.steps):
        record = spawn.records[i]
        if record.start_ns:
            calls.append((step.describe(), record.start_ns, record.end_ns, record.result))
    return calls


PLAN, MEMORY = ffi.typeof("struct mc_plan *"), ffi.typeof("char[]")
RECORD_SIZE = ffi.sizeof("struct mc_record")
SPAWN_SIZE, PARENT_SIZE = ffi.sizeof("struct mc_spawn") + 8, ffi.sizeof("struct mc_parent") + 8
PIPE_ENDS = ("ready", "go", "go-write")  # inputs of the child's plan: ends of its pipes to the parent-side plan


class ParentPlan:
    """The parent-side plan of a start (csrc/plan/parent.c); its first input is the child's ``pid``. Descriptors that
    its first part opens become the inputs with the same names of the child's plan. ``names``: these inputs, and
    PIPE_ENDS."""

    __slots__ = ("_buffer", "names", "pipe_slots", "plan", "room", "shared", "struct")

    def __init__(self, plan: Plan, child: Plan) -> None:
        self.plan = plan
        shared = [name for name in child.inputs if name in plan.slots]
        self.names = (*shared, *PIPE_ENDS)
        pairs = [slot for name in shared for slot in (plan.slots[name], child.slots[name])]
        self.shared: Any = ffi.new("int32_t[]", pairs)
        self.pipe_slots = [child.slots[name] for name in PIPE_ENDS]
        self._buffer: Any = ffi.from_buffer("struct mc_plan *", plan.buffer)
        self.struct: Any = ffi.new("struct mc_parent *")
        self.struct.run.plan, self.struct.ninputs = self._buffer, len(plan.inputs)
        self.struct.nshared, self.struct.shared = len(shared), self.shared
        self.struct.ready, self.struct.go, self.struct.answer = self.pipe_slots
        self.room = PARENT_SIZE + plan.encoded().room


class ParentRun:
    """One run of a parent-side plan. ``numbers``: the values of its inputs (C sets ``pid`` and ``answer``)."""

    __slots__ = ("_memory", "numbers", "plan", "records", "struct", "template")

    def __init__(self, template: ParentPlan, numbers: Mapping[str, int]) -> None:
        self.template, self.plan, self.numbers = template, template.plan, numbers
        self._memory = ffi.new(MEMORY, template.room)
        self.struct: Any = lib.mc_parent_lay(self._memory, template.struct)
        run = self.struct.run
        self.records: Any = run.records
        _fill(run.slots, self.plan, numbers)

    @property
    def failed(self) -> int | None:
        """The index of the step that failed; None: none did."""
        return self.struct.run.failed if self.struct.run.failed >= 0 else None

    def written(self) -> bytes:
        """The records as they are now."""
        return bytes(ffi.buffer(self.records, RECORD_SIZE * len(self.plan.encoded().ops)))


class Spawn:
    """One run of a plan: the structures that C writes (struct mc_spawn, records), and the child process.

    ``struct.pid`` is set as soon as the child exists: another thread can read it while ``start`` sleeps in clone3.
    """

    __slots__ = (
        "_buffer",
        "_like",
        "_memory",
        "_ops",
        "_own",
        "forgets",
        "pid",
        "pidfd",
        "records",
        "result",
        "struct",
    )

    def __init__(self, plan: Plan, buffer: bytes | None = None, own: Callable[[], Plan] | None = None) -> None:
        """``buffer``: another encoding of the plan, equal but for strings; ``own`` makes the plan that it encodes."""
        encoded = plan.encoded()
        self._like, self._own, self._ops = plan, own, encoded.ops
        self.forgets = False  # whether ``plan`` is for this run alone: its encoding is freed at the end
        self._buffer: Any = ffi.from_buffer(PLAN, buffer or encoded.buffer)
        self._memory = ffi.new(MEMORY, SPAWN_SIZE + encoded.room)
        self.struct: Any = lib.mc_spawn_lay(self._memory, self._buffer)
        self.records: Any = self.struct.run.records
        self.pid = self.pidfd = -1
        self.result = 0

    @property
    def plan(self) -> Plan:
        """The plan that is walked."""
        own, plan = self._own, self._like  # in this order: another thread may be here too
        if own is not None:
            self._like = plan = own()
            self._own = None
        return plan

    def clone(self, flags: int, inputs: Mapping[str, int], cgroup: int = -1, parent: ParentRun | None = None) -> int:
        """clone3; the child walks the plan. Returns when the child has exec'd or ended: 0, or -errno of clone3.

        ``inputs`` maps each of the plan's inputs to a descriptor (above 2); ``cgroup`` is the descriptor of the cgroup
        directory for the child (CLONE_INTO_CGROUP); ``parent`` runs at the same time, and supplies the inputs that its
        template names."""
        if flags & lib.CLONE_NEWTIME:
            hint = "the child shares our memory: make unshare a step of its plan, and exec enters it"
            raise SpecError("flags", "CLONE_NEWTIME", "cannot be given to clone3 here", hint)
        spawn = self.struct
        spawn.flags, spawn.cgroup = flags, cgroup
        if parent is None:
            _fill(spawn.run.slots, self._like, inputs)
        else:
            _fill(spawn.run.slots, self._like, inputs, parent.template.names)
            spawn.parent = parent.struct
        self.result = lib.mc_spawn(spawn)
        spawn.parent = ffi.NULL
        self.pid, self.pidfd = spawn.pid, spawn.pidfd
        return self.result

    def start(self, flags: str | int = "0", inputs: Mapping[str, int] | None = None, cgroup: int = -1) -> int:
        """As ``clone``, with CLONE_NEW* flags as a number or by name; returns the pid. StepError: clone3 or a step
        failed; the child is then reaped."""
        flags = const(flags) if isinstance(flags, str) else flags
        result = self.clone(flags, inputs or {}, cgroup)
        if result < 0:
            raise StepError(-result, f"clone3({getattr(flags, 'text', hex(flags))})")
        if self.failed is not None or self.interrupted is not None:
            status = self.kill_and_reap()
            self.close()
            raise self.error(status)
        return self.pid

    @property
    def failed(self) -> int | None:
        """The index of the step that failed; None: none did."""
        return self.struct.run.failed if self.struct.run.failed >= 0 else None

    @property
    def succeeded(self) -> bool:
        """Whether the child was cloned and every step was performed, the exec included."""
        run, ops = self.struct.run, self._ops
        return self.result >= 0 and run.failed < 0 and (run.at >= len(ops) or ops[run.at] in EXECS)

    @property
    def interrupted(self) -> int | None:
        """The index of the step in which the child was killed; None: it reached its exec or the plan's end."""
        run = self.struct.run
        return None if self.succeeded or self.result < 0 or run.failed >= 0 else int(run.at)

    def error(self, status: int = 0) -> StepError:
        """The error of the failed step; or that the child ended in a step, with ``status`` as ``wait`` returns it."""
        if self.failed is not None:
            return StepError(-self.records[self.failed].result, self.plan.steps[self.failed].describe())
        hint = "the child was killed in it by signal" if status < 0 else "the child ended in it with status"
        hint = f"{hint} {abs(status)}"
        if status == -9 and self.interrupted == 0 and self.struct.cgroup >= 0:
            hint += ": a cgroup that was killed once can kill what is born in it"  # linux.Cgroup.kill
        return StepError(errno.ECANCELED, self.plan.steps[self.interrupted or 0].describe(), hint=hint)

    def wait(self) -> int:
        """Waits for the child and reaps it: its exit code, or minus the signal that ended it."""
        while lib.mc_pidfd_wait(self.pidfd, -1) == -errno.EINTR:
            pass
        check(lib.mc_spawn_reap(self.struct), "waitid", self.pid)
        return int(self.struct.status)

    def kill_and_reap(self) -> int:
        """Kills and reaps the child, unless it is reaped; returns its status as ``wait`` does (0: there is no child).
        It can be called after an exception in ``clone`` (raised by a signal handler), which has not stored the pidfd.
        """
        if self.struct.reaped:
            return int(self.struct.status)
        if self.struct.pidfd < 0:
            return 0
        self.pid, self.pidfd = self.struct.pid, self.struct.pidfd
        self.kill()
        try:
            return self.wait()
        except StepError as e:
            if e.errno != errno.ECHILD:  # ECHILD: the caller ignores SIGCHLD, so the kernel has reaped the child
                raise
            return 0

    def kill(self) -> None:
        """Sends SIGKILL; no error if the child has ended."""
        lib.mc_syscall(lib.SYS_pidfd_send_signal, self.pidfd, 9, 0, 0, 0, 0)

    def timeline(self) -> Timeline:
        """The events of clone3 and of the child's steps."""
        from minicontainer.plan.timeline import Timeline

        call = f"clone3({self.struct.flags:#x})"
        result = self.result if self.result < 0 else self.pid
        clone = ("clone", call, self.struct.start_ns, self.struct.end_ns, result)
        return Timeline([clone], self.plan, self.written(), self.struct.end_ns)

    def written(self) -> bytes:
        """The records as they are now."""
        return bytes(ffi.buffer(self.records, RECORD_SIZE * len(self._ops)))

    def close(self) -> None:
        """Closes the pidfd."""
        if self.struct.reaped:
            self._buffer = None  # a result that is kept needs the records alone
            if self.forgets:
                self._like.forget_encoding()
        fd, self.pidfd = self.pidfd, -1
        self.struct.pidfd = -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Spawn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

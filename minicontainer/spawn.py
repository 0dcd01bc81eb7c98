"""The middle layer: a child that walks a plan of steps of one's own choosing.

    from minicontainer import plan as p
    from minicontainer.spawn import Spawn

    with Spawn(p.Plan([p.sethostname("box"), p.execve(["/bin/hostname"], ["hostname"], [])])) as child:
        child.start("CLONE_NEWUTS")
        print(child.wait())

A plan whose last step is no exec ends the child with 0 when it was walked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from minicontainer.errors import StepError
from minicontainer.native import check, ffi, lib
from minicontainer.plan import Const, Plan, const
from minicontainer.timeline import Timeline


class Spawn:
    """One run of a plan: what C writes to (struct mc_spawn, records), and the child that came of it.

    ``struct.pid`` is there as soon as the child exists, while ``start`` still sleeps in the clone: for a thread that
    does the parent's half meanwhile.
    """

    __slots__ = ("pid", "pidfd", "plan", "records", "result", "struct")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.struct: Any = ffi.new("struct mc_spawn *")
        self.records: Any = ffi.new("struct mc_record[]", max(1, len(plan.steps)))
        self.pid = self.pidfd = -1
        self.result = 0

    def clone(self, flags: int, inputs: Mapping[str, int], cgroup: int = -1) -> int:
        """clone3, and the walk in the child; returns when it has exec'd or ended: 0, or -errno of clone3.

        ``inputs`` gives a descriptor (above 2) for each of the plan's; ``cgroup`` is the directory to be born in."""
        plan, spawn = self.plan, self.struct
        slots = ffi.new("int32_t[]", max(1, len(plan.slots)))
        for name in plan.inputs:
            slots[plan.slots[name]] = inputs[name]
        strings = ffi.new("char *[]", max(1, plan.nstrings))
        buffer = ffi.from_buffer(plan.buffer)
        spawn.flags, spawn.cgroup = flags, cgroup
        run = spawn.run
        run.plan = ffi.cast("struct mc_plan *", buffer)
        run.records, run.slots, run.strings = self.records, slots, ffi.cast("const char **", strings)
        self.result = lib.mc_spawn(spawn)
        run.plan = run.slots = run.strings = ffi.NULL
        self.pid, self.pidfd = spawn.pid, spawn.pidfd
        return self.result

    def start(self, flags: str | Const = "0", inputs: Mapping[str, int] | None = None, cgroup: int = -1) -> int:
        """As ``clone``, with CLONE_NEW* flags by name; returns the pid. StepError for clone3 or the step that failed;
        the child is then reaped."""
        flags = const(flags) if isinstance(flags, str) else flags
        check(self.clone(flags, inputs or {}, cgroup), f"clone3({flags.text})")
        if self.failed is not None:
            self.wait()
            self.close()
            raise self.error()
        return self.pid

    @property
    def failed(self) -> int | None:
        """The index of the step that failed."""
        return self.struct.run.failed if self.struct.run.failed >= 0 else None

    def error(self) -> StepError:
        """What the failed step has to say."""
        index = self.struct.run.failed
        return StepError(-self.records[index].result, self.plan.steps[index].describe())

    def wait(self) -> int:
        """Reaps the child: its exit code, or minus the signal that ended it."""
        while lib.mc_pidfd_wait(self.pidfd, -1) == -errno.EINTR:
            pass
        status = ffi.new("int *")
        check(lib.mc_pidfd_reap(self.pidfd, status, ffi.new("uint64_t[3]")), "waitid", self.pid)
        return int(status[0])

    def kill(self) -> None:
        """SIGKILL, for a child that may have ended."""
        lib.mc_syscall(lib.SYS_pidfd_send_signal, self.pidfd, 9, 0, 0, 0, 0)

    def timeline(self) -> Timeline:
        """The child's steps as they happened, and the clone."""
        call = f"clone3({self.struct.flags:#x})"
        result = self.result if self.result < 0 else self.pid
        clone = ("clone", call, self.struct.start_ns, self.struct.end_ns, result)
        return Timeline([clone], self.plan, bytes(ffi.buffer(self.records)), self.struct.end_ns)

    def close(self) -> None:
        """Closes the pidfd."""
        fd, self.pidfd = self.pidfd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Spawn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

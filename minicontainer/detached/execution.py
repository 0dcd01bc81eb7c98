"""``Container.exec``, ``exec_detached`` and ``run``: further processes in a running container."""

from __future__ import annotations

import errno
import os

from minicontainer.container.process import DEVNULL
from minicontainer.detached import enter
from minicontainer.detached.enter import Exec
from minicontainer.detached.inspection import Inspectable
from minicontainer.errors import Error, as_step_error
from minicontainer.linux.process import pidfd_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, overload

    from typing_extensions import Unpack

    from minicontainer.container.result import Result
    from minicontainer.spec.keywords import (
        BytesExecKeywords,
        BytesExecRunKeywords,
        EncodedExecKeywords,
        EncodedExecRunKeywords,
        ExecKeywords,
        ExecOptions,
        ExecRunKeywords,
        TextExecKeywords,
        TextExecRunKeywords,
    )
else:
    from minicontainer.records import overload

PLANS_MAX = 64  # cached plans of one container
# Errors of an exec while process 1 ends: the new process was killed (ECANCELED), or alloc_pid gives no pid any more
# (kernel/pid.c: ENOMEM), or the cgroup is gone (ENODEV); a machine closes its connections (ECONNRESET, EPIPE).
# Process 1 ends within END_TIMEOUT seconds then.
ENDING_ERRNOS = (errno.ECANCELED, errno.ENOMEM, errno.ENODEV, errno.ESRCH, errno.ECONNRESET, errno.EPIPE)
END_TIMEOUT = 1.0


class ExecTarget(Inspectable):
    """A container in which further processes can be started."""

    __slots__ = ("_plans",)

    def __init__(self, identifier: str) -> None:
        super().__init__(identifier)
        self._plans: dict[object, enter.ExecPlan] = {}  # cached, by command

    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[TextExecKeywords]) -> Exec[str]: ...
    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[EncodedExecKeywords]) -> Exec[str]: ...
    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[BytesExecKeywords]) -> Exec[bytes]: ...
    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[ExecKeywords]) -> Exec[Any]: ...
    def exec(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        tty: bool = False,
        **streams: Any,
    ) -> Exec[Any]:
        """Starts another process in the container (enter.py); ``streams`` are those of Popen. Error if the container
        does not run."""
        pidfd = self.open_process("exec")
        if self._entry.is_frozen():
            os.close(pidfd)
            raise Error(f"exec {self.id[:12]}: is paused, so that nothing could start in it (unpause it first)")
        try:
            plan = self._exec_plan(tuple(args), env=env, cwd=cwd, user=user, tty=tty or None)
            if self.config.spec.isolation == "kvm":
                from minicontainer.detached.machineexec import MachineExec

                return MachineExec(plan, self._entry.open, **streams)
            return Exec(plan, pidfd, self.open_cgroup, **streams)
        except (Error, OSError) as e:
            number = e.errno if isinstance(e, OSError) else None
            if pidfd_wait(pidfd, END_TIMEOUT if number in ENDING_ERRNOS else 0):
                raise Error(f"exec {self.id[:12]}: the container has ended meanwhile") from None
            raise as_step_error(e, "exec") if isinstance(e, OSError) else e from None
        finally:
            os.close(pidfd)

    def _exec_plan(self, args: tuple[str, ...], **options: Any) -> enter.ExecPlan:
        """The plan of a command, cached per run of the container. ``user`` and ``tty`` depend on more than the key (the
        container's /etc/passwd, the caller's terminal): their plans are not cached."""
        assert self._process is not None
        env = options["env"]
        key = (
            self._process.pid,
            self._process.start,
            args,
            None if env is None else tuple(sorted(env.items())),
            options["cwd"],
        )
        plan = self._plans.get(key)
        if plan is None or options["user"] is not None or options["tty"]:
            make = enter.exec_plan
            if self.config.spec.isolation == "kvm":
                from minicontainer.detached.machineexec import exec_plan as make
            plan = make(self.config.spec, self._process.pid, args, hostname=self.config.hostname, **options)
            if len(self._plans) < PLANS_MAX and options["user"] is None and not options["tty"]:
                self._plans[key] = plan
        return plan

    def exec_detached(self, args: Sequence[str], **options: Unpack[ExecOptions]) -> None:
        """As ``exec -d``: starts a process and does not wait for it; its streams are /dev/null."""
        self.exec(args, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, **options).disown()

    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[TextExecRunKeywords]) -> Result[str]: ...
    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[EncodedExecRunKeywords]) -> Result[str]: ...
    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[BytesExecRunKeywords]) -> Result[bytes]: ...
    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[ExecRunKeywords]) -> Result[Any]: ...
    def run(self, args: Sequence[str], **keywords: Any) -> Result[Any]:
        """Runs another process in the container to its end; keywords are those of ``minicontainer.run`` and
        ``exec``."""
        from minicontainer.container.running import finish

        return finish(lambda **streams: self.exec(args, **streams), **keywords)

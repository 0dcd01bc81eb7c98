"""A container that is entered: ``exec`` and what is made of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from minicontainer.container.process import DEVNULL
from minicontainer.container.result import Result
from minicontainer.container.running import finish
from minicontainer.detached import enter
from minicontainer.detached.client import ended
from minicontainer.detached.enter import Exec
from minicontainer.detached.inspection import Observed
from minicontainer.errors import Error, as_step_error

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minicontainer.spec.keywords import (
        OfBytesEntered,
        OfBytesExec,
        OfEncodedEntered,
        OfEncodedExec,
        OfEntered,
        OfExec,
        OfTextEntered,
        OfTextExec,
        Wishes,
    )

MANY = 64  # ways into it that are kept
# What a process that enters comes to where process 1 is about to end: it is killed first, or no pid is given any more
# (kernel/pid.c, alloc_pid: ENOMEM), or its cgroup is gone (ENODEV). Process 1 ends within ENDING seconds then.
ENDS = (errno.ECANCELED, errno.ENOMEM, errno.ENODEV, errno.ESRCH)
ENDING = 1.0


class Entered(Observed):
    """Other processes in it."""

    __slots__ = ("_ways",)

    def __init__(self, identifier: str) -> None:
        super().__init__(identifier)
        self._ways: dict[object, enter.Way] = {}  # into it, as it was last time

    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[OfTextExec]) -> Exec[str]: ...
    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[OfEncodedExec]) -> Exec[str]: ...
    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[OfBytesExec]) -> Exec[bytes]: ...
    @overload
    def exec(self, args: Sequence[str], **keywords: Unpack[OfExec]) -> Exec[Any]: ...
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
        """Another process in it (enter.py), as Popen; ``streams`` are Popen's. Error where it does not run."""
        pidfd = self.open_process("exec")
        if self._entry.is_frozen():
            os.close(pidfd)
            raise Error(f"exec {self.id[:12]}: is paused, so that nothing could start in it (unpause it first)")
        try:
            way = self._way(tuple(args), env=env, cwd=cwd, user=user, tty=tty or None)
            return Exec(way, pidfd, self.open_cgroup, **streams)
        except (Error, OSError) as e:
            number = e.errno if isinstance(e, OSError) else None
            if ended(pidfd, ENDING if number in ENDS else 0):
                raise Error(f"exec {self.id[:12]}: the container has ended meanwhile") from None
            raise as_step_error(e, "exec") if isinstance(e, OSError) else e from None
        finally:
            os.close(pidfd)

    def _way(self, args: tuple[str, ...], **wishes: Any) -> enter.Way:
        """The way in for this command; kept while nothing of it can have changed but by another start."""
        assert self._process is not None
        env = wishes["env"]
        key = (
            self._process.pid,
            self._process.start,
            args,
            None if env is None else tuple(sorted(env.items())),
            wishes["cwd"],
        )
        way = self._ways.get(key)
        if way is None or wishes["user"] is not None or wishes["tty"]:
            way = enter.way(self.config.spec, self._process.pid, args, hostname=self.config.hostname, **wishes)
            if len(self._ways) < MANY and wishes["user"] is None and not wishes["tty"]:
                self._ways[key] = way
        return way

    def leave(self, args: Sequence[str], **wishes: Unpack[Wishes]) -> None:
        """``exec`` of what nobody waits for: its streams are /dev/null, and it ends when it does, or the container."""
        self.exec(args, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, **wishes).disown()

    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[OfTextEntered]) -> Result[str]: ...
    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[OfEncodedEntered]) -> Result[str]: ...
    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[OfBytesEntered]) -> Result[bytes]: ...
    @overload
    def run(self, args: Sequence[str], **keywords: Unpack[OfEntered]) -> Result[Any]: ...
    def run(self, args: Sequence[str], **keywords: Any) -> Result[Any]:
        """``exec`` to its end; keywords are those of ``minicontainer.run`` and of ``exec``."""
        return finish(lambda **given: self.exec(args, **given), **keywords)

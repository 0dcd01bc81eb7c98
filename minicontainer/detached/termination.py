"""Ends a container: by a request to its monitor, or directly if the monitor is dead."""

from __future__ import annotations

import _signal  # signal imports enum

from minicontainer.container.registry import orphans
from minicontainer.detached import foreground
from minicontainer.detached.client import MONITOR_TIMEOUT, request
from minicontainer.detached.execution import ExecTarget
from minicontainer.detached.records import CorruptError
from minicontainer.detached.store import NotFoundError
from minicontainer.errors import Error
from minicontainer.linux.files import owned
from minicontainer.linux.process import open_pidfd, pidfd_wait
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from contextlib import ExitStack
else:
    from minicontainer.light import ExitStack


def _peer(s: socket.socket) -> int:
    """A pidfd of the process that listens at the other end (unix(7), SO_PEERCRED)."""
    import socket
    import struct

    pid, _, _ = struct.unpack("iII", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return open_pidfd(pid) if pid > 0 else -1


class Terminable(ExecTarget):
    """A container that can be ended."""

    __slots__ = ()

    def _is_in_the_foreground(self) -> bool:
        try:
            return self.config.foreground and self.state.is_running
        except (CorruptError, NotFoundError):
            return False

    def _runs(self) -> bool:
        try:
            return self.state.is_running
        except CorruptError:
            return False

    def _end_start(self, what: str) -> None:
        """Ends the start of a machine that boots; ``what`` is the command. Error if that is in the foreground."""
        if not self._boots():
            return
        if self.config.foreground:
            reason = "its machine boots in the foreground (end the command that starts it)"
            raise Error(f"{what} {self.id[:12]}: {reason}")
        self._kill_by_monitor()

    def _boots(self) -> bool:
        """Whether it is a machine that a process starts, which takes time and holds the lock meanwhile."""
        try:
            return self.config.spec.isolation == "kvm" and not self.state.is_running and self._entry.is_locked()
        except CorruptError:
            return False

    def _kill_by_monitor(self) -> None:
        """Sends the monitor a request to kill the container, whatever the state file says, and waits for the monitor's
        end. Error if a process survives."""
        if orphans.is_copied(self.id):
            return
        if self._is_in_the_foreground():
            foreground.stop(self, _signal.SIGKILL, 0)
            if self._is_in_the_foreground():
                raise self._survival_error("rm")
            return
        with ExitStack() as stack:
            try:
                with self.connect() as s:
                    pidfd = owned(stack, _peer(s))
                    s.send(request(lib.MC_REQUEST_STOP, _signal.SIGKILL, 0))
            except (ConnectionRefusedError, ConnectionResetError, FileNotFoundError, BrokenPipeError):
                pidfd = owned(stack, orphans.monitor(self.id))  # a monitor that ends does not listen any more
            except BlockingIOError:
                raise self._survival_error("rm") from None
            if pidfd >= 0 and not pidfd_wait(pidfd, MONITOR_TIMEOUT):
                raise self._survival_error("rm")

    def _survival_error(self, what: str) -> Error:
        """The error of the command ``what``: which processes have survived SIGKILL."""
        from minicontainer.linux.cgroupkill import describe_processes

        cgroup = self.open_cgroup()
        if cgroup is None:
            return Error(f"{what} {self.id[:12]}: has not ended {MONITOR_TIMEOUT:g} seconds after the kill")
        with cgroup:
            reason = describe_processes(cgroup.fd) if cgroup.populated else "its monitor does not answer"
        return Error(f"{what} {self.id[:12]}: has not ended {MONITOR_TIMEOUT:g} seconds after the kill: {reason}")

    def _end_if_dead(self) -> None:
        try:
            if self.status == "dead":
                with self._entry.locked():
                    orphans.end(self.id)
        except NotFoundError:
            pass

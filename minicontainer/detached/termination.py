"""How a container is ended, by its monitor or where that is dead; and what is said where some of it lives on."""

from __future__ import annotations

import os
import signal
import socket
import struct

from minicontainer.container.registry import orphans
from minicontainer.detached import foreground
from minicontainer.detached.client import PATIENCE, ended, message
from minicontainer.detached.execution import Entered
from minicontainer.detached.records import CorruptError
from minicontainer.detached.store import NotFoundError
from minicontainer.errors import Error
from minicontainer.linux.cgroupkill import describe_processes
from minicontainer.native import lib


def _peer(s: socket.socket) -> int:
    """A pidfd of who listens at the other end (unix(7), SO_PEERCRED)."""
    pid, _, _ = struct.unpack("iII", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except ProcessLookupError:
        return -1


class Ending(Entered):
    """A container whose end can be brought about."""

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

    def _end_monitor(self) -> None:
        """Has its monitor kill it, whatever its state says, and waits for the end of that. Error where something of it
        survives."""
        if orphans.is_copied(self.id):
            return
        if self._is_in_the_foreground():
            foreground.stop(self, signal.SIGKILL, 0)
            if self._is_in_the_foreground():
                raise self._survives("rm")
            return
        try:
            with self.connect() as s:
                pidfd = _peer(s)
                s.send(message(lib.MC_REQUEST_STOP, signal.SIGKILL, 0))
        except (ConnectionRefusedError, ConnectionResetError, FileNotFoundError, BrokenPipeError):
            pidfd = orphans.monitor(self.id)  # it listens no more, or there is none
        except BlockingIOError:
            raise self._survives("rm") from None
        if pidfd < 0:
            return
        try:
            if not ended(pidfd, PATIENCE):
                raise self._survives("rm")
        finally:
            os.close(pidfd)

    def _survives(self, what: str) -> Error:
        """Why ``what`` was not done: what of it has not ended by the kill."""
        cgroup = self.open_cgroup()
        if cgroup is None:
            return Error(f"{what} {self.id[:12]}: has not ended {PATIENCE:g} seconds after the kill")
        with cgroup:
            reason = describe_processes(cgroup.fd) if cgroup.populated else "its monitor does not answer"
        return Error(f"{what} {self.id[:12]}: has not ended {PATIENCE:g} seconds after the kill: {reason}")

    def _end_if_left(self) -> None:
        try:
            if self.status == "dead":
                with self._entry.locked():
                    orphans.end(self.id)
        except NotFoundError:
            pass

"""How a container is ended, by its monitor or where that is dead; and what is said where some of it lives on."""

from __future__ import annotations

import os
import signal
import socket
import struct

from minicontainer import runtime
from minicontainer.detached import foreground
from minicontainer.detached.client import PATIENCE, ended, message
from minicontainer.detached.execution import Entered
from minicontainer.detached.records import CorruptError
from minicontainer.detached.store import NotFoundError
from minicontainer.errors import Error, sentence
from minicontainer.linux.cgroupkill import describe_processes
from minicontainer.native import lib


def _peer(s: socket.socket) -> int:
    """A pidfd of who listens at the other end (unix(7), SO_PEERCRED)."""
    pid, _, _ = struct.unpack("iII", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except ProcessLookupError:
        return -1


SOON = 1.0  # seconds that somebody may wait who only looks


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
        if self._is_copied():
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
            pidfd = self._open_monitor()  # it listens no more, or there is none
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

    def _open_monitor(self) -> int:
        """A pidfd of its monitor; -1 where there is none, or nobody knows."""
        try:
            monitor = self.state.monitor
        except CorruptError:
            return -1
        return -1 if monitor is None else monitor.pidfd()

    def _end_if_left(self) -> None:
        try:
            if self.status == "dead":
                with self._entry.locked():
                    self._end_what_is_left()
        except NotFoundError:
            pass

    def end_what_is_seen_dead(self) -> None:
        """Ends what runs on of it without its monitor, whoever looks at it: a process that has changed its ids is not
        told of that death any more (prctl(2), PR_SET_PDEATHSIG). What does not end soon is left to who wants that."""
        try:
            if self.status != "dead":
                return
            lock = self._entry.lock(wait=False)
        except (BlockingIOError, NotFoundError, CorruptError):
            return  # somebody changes it now
        try:
            if self.status == "dead":
                self._end_what_is_left(SOON)
        except Error:
            pass
        finally:
            os.close(lock)

    def _is_copied(self) -> bool:
        """Whether its directory is a copy, which has none of the locks: what its files name is not ours to end, and may
        live, in a state directory of another mark."""
        try:
            return self._entry.config().mark != runtime.mark() and not self._entry.is_watched()
        except (CorruptError, NotFoundError):
            return False

    def _needs_dead_monitor(self) -> None:
        """Error where its monitor lives though nobody has its claim: then a copy is where its state directory was."""
        pidfd = self._open_monitor()
        if pidfd < 0:
            return
        try:
            if not ended(pidfd, SOON):  # its claim goes before it does
                where = runtime.directory()
                raise Error(sentence("container", self.id[:12], f"runs, and {where} is a copy of its state directory"))
        finally:
            os.close(pidfd)

    def _end_what_is_left(self, timeout: float = PATIENCE) -> None:
        """After the death of its monitor: its processes, its cgroup, what it had of a network. Error where something of
        it survives."""
        if self._is_copied():
            self._entry.unlink()
            return
        self._needs_dead_monitor()
        try:
            process = self.state.process
        except CorruptError:
            process = None
        pidfd = process.pidfd() if process is not None else -1
        if pidfd >= 0:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                if not ended(pidfd, timeout):
                    raise Error(f"container {self.id[:12]}: its first process does not end, though killed")
            except ProcessLookupError:
                pass
            finally:
                os.close(pidfd)
        if (cgroup := self.open_cgroup()) is not None:
            cgroup.remove(kill=True, timeout=timeout)
        self._entry.end_lease()

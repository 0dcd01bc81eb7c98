"""What is known of a detached container, and how its monitor is spoken to."""

from __future__ import annotations

import math
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from minicontainer import events
from minicontainer.detached.finalstate import LastWord, await_foreground
from minicontainer.detached.records import Config, CorruptError, State
from minicontainer.detached.store import Entry, NotFoundError
from minicontainer.errors import Error
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.process import Process
from minicontainer.native import ffi


def message(word: int, first: int = 0, second: int = 0) -> bytes:
    """struct mc_request."""
    return bytes(ffi.buffer(ffi.new("struct mc_request *", {"type": word, "first": first, "second": second})))


PATIENCE = 20.0  # seconds that a monitor may take to answer, or to end after a kill


class Handle:
    """A container by its id: nothing is kept open."""

    __slots__ = ("_config", "_entry", "_process")

    def __init__(self, identifier: str) -> None:
        self._entry = Entry(identifier)
        self._config: Config | None = None
        self._process: Process | None = None  # process 1, as it was last time

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._entry.id

    @property
    def config(self) -> Config:
        """What was asked for. CorruptError where that cannot be read."""
        if self._config is None:
            with self._named():
                self._config = self._entry.config()
        return self._config

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What is wrong with a file of its, said of it."""
        try:
            yield
        except CorruptError as e:
            raise CorruptError(f"container {self.id[:12]}: {e}") from None

    @property
    def name(self) -> str:
        """Its name; "" where it has none."""
        return self.config.name

    @property
    def state(self) -> State:
        """What has become of it, now. CorruptError where that cannot be read."""
        with self._named():
            return self._entry.state()

    @property
    def status(self) -> str:
        """``created``, ``running``, ``restarting``, ``paused``, ``stopping``, ``exited``, ``dead`` (State)."""
        return self.state.status

    @property
    def pid(self) -> int:
        """Process 1 as the host counts; 0 where there is none."""
        process = self.state.process
        return process.pid if process is not None else 0

    @property
    def directory(self) -> str:
        """Where its state and its log are."""
        return self._entry.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id,)

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Handle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<minicontainer.Container {self.id[:12]}>"

    def _tell(self, action: str, **attributes: object) -> None:
        """Says what was done to it (events.py)."""
        try:
            name = self.config.name
        except Error:
            name = ""  # it is gone, or cannot be read
        events.tell("container", action, self.id, name=name, **attributes)

    # -- its monitor

    def say(self, word: int, first: int = 0, second: int = 0, data: bytes = b"") -> bool:
        """One message; False where there is no monitor to hear it."""
        try:
            with self.connect() as s:
                s.send(bytes([word]) + data if data else message(word, first, second))
        except (ConnectionRefusedError, FileNotFoundError, BrokenPipeError):
            return False
        except BlockingIOError:
            raise Error(f"container {self.id[:12]}: its monitor does not answer (is it stopped?)") from None
        return True

    def connect(self) -> socket.socket:
        """The socket of its monitor. ConnectionRefusedError or FileNotFoundError where there is none. BlockingIOError
        where that does not listen for PATIENCE seconds, also of what is sent."""
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(PATIENCE), 0))  # socket(7)
        fd = -1
        try:
            fd = self._entry.open()
            s.connect(f"/proc/self/fd/{fd}/control")  # no path is too long so
        except BaseException:
            s.close()
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        return s

    def needs_running(self, what: str) -> State:
        state = self.state
        if not state.is_running:
            raise Error(f"{what} {self.id[:12]}: is not running ({state.status})")
        return state

    def _await_end(self, timeout: float | None) -> State | None:
        """Its state after the end of its monitor; None where nothing was kept."""
        try:
            state = self.state
            if state.monitor is None or not state.is_running:
                return state
            if self.config.foreground:
                return await_foreground(self.id, self.directory, state.monitor, timeout)
            return self._await_monitor(state.monitor, timeout) or self.state
        except (NotFoundError, FileNotFoundError):
            return None

    def _await_monitor(self, monitor: Process, timeout: float | None) -> State | None:
        """Waits for its end; what it wrote last, None where it was killed."""
        with ExitStack() as stack:
            pidfd = monitor.pidfd()
            if pidfd < 0:
                return None
            stack.callback(os.close, pidfd)
            last = stack.enter_context(LastWord(self.directory, monitor))
            if not ended(pidfd, timeout):
                raise TimeoutError(f"container {self.id[:12]}: has not ended after {timeout:g} seconds")
            return last.read()

    def open_cgroup(self) -> Cgroup | None:
        """Its cgroup, to be closed; None where it has none."""
        path = self._entry.cgroup()
        return Cgroup.open(path) if path and os.path.isdir(path) else None

    def _needs_cgroup(self, what: str) -> Cgroup:
        self.needs_running(what)
        cgroup = self.open_cgroup()
        if cgroup is None:
            raise Error(f"{what} {self.id[:12]}: has no cgroup (this host gives this user none: minicontainer doctor)")
        return cgroup

    def open_process(self, what: str) -> int:
        """A pidfd of process 1. Error where there is none, saying ``what`` was wanted."""
        pidfd = self._process.pidfd() if self._process is not None else -1
        if pidfd < 0:
            self._process = self.needs_running(what).process
            pidfd = self._process.pidfd() if self._process is not None else -1
        if pidfd < 0:
            raise Error(f"{what} {self.id[:12]}: is not running (its monitor is about to start it again, or to end)")
        return pidfd


def ended(pidfd: int, timeout: float | None) -> bool:
    """Whether the process has ended within ``timeout`` seconds."""
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while not (ready := poll.poll(min(max(0.0, deadline - time.monotonic()) * 1000, 10**9))):
        if time.monotonic() >= deadline:
            return False
    return bool(ready)

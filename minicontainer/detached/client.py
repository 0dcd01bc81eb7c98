"""A client of a container: reads its files in the state directory, and sends requests to its monitor."""

from __future__ import annotations

import os

from minicontainer.detached.finalstate import FinalState, await_foreground
from minicontainer.detached.records import CorruptError
from minicontainer.detached.store import Entry, NotFoundError
from minicontainer.errors import Error
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.process import pidfd_wait
from minicontainer.native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from contextlib import ExitStack, contextmanager
    from typing import Any

    from minicontainer.detached.records import Config, State
    from minicontainer.linux.process import Process
else:
    from minicontainer.light import ExitStack, contextmanager


def request(kind: int, first: int = 0, second: int = 0) -> bytes:
    """struct mc_request of type ``kind`` (MC_REQUEST_*)."""
    return bytes(ffi.buffer(ffi.new("struct mc_request *", {"type": kind, "first": first, "second": second})))


MONITOR_TIMEOUT = 20.0  # seconds that a monitor may take to receive a request, or to end after SIGKILL


class Client:
    """A container by its id. The object holds no descriptor."""

    __slots__ = ("_config", "_entry", "_process")

    def __init__(self, identifier: str) -> None:
        self._entry = Entry(identifier)
        self._config: Config | None = None
        self._process: Process | None = None  # process 1, for open_process

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._entry.id

    @property
    def config(self) -> Config:
        """The configuration. CorruptError if it cannot be read."""
        if self._config is None:
            with self._named_errors():
                self._config = self._entry.config()
        return self._config

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Adds the container's id to a CorruptError."""
        try:
            yield
        except CorruptError as e:
            raise CorruptError(f"container {self.id[:12]}: {e}") from None

    @property
    def name(self) -> str:
        """The name; "" without one."""
        return self.config.name

    @property
    def state(self) -> State:
        """The current state. CorruptError if it cannot be read."""
        with self._named_errors():
            return self._entry.state()

    @property
    def status(self) -> str:
        """``created``, ``running``, ``restarting``, ``paused``, ``stopping``, ``exited``, ``dead`` (State)."""
        return self.state.status

    @property
    def pid(self) -> int:
        """The pid of process 1 in the caller's pid namespace; 0 if the container does not run."""
        process = self.state.process
        return process.pid if process is not None else 0

    @property
    def directory(self) -> str:
        """The path of its state directory."""
        return self._entry.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id,)

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Client) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<minicontainer.Container {self.id[:12]}>"

    def _emit(self, action: str, **attributes: object) -> None:
        """Emits an event of the container (events.py)."""
        try:
            name = self.config.name
        except Error:
            name = ""  # the config is gone, or cannot be read
        from minicontainer import events

        events.emit("container", action, self.id, name=name, **attributes)

    # -- the monitor

    def send_request(self, kind: int, first: int = 0, second: int = 0, data: bytes = b"") -> bool:
        """Sends a request to the monitor; False if there is no monitor."""
        try:
            with self.connect() as s:
                s.send(bytes([kind]) + data if data else request(kind, first, second))
        except (ConnectionRefusedError, FileNotFoundError, BrokenPipeError):
            return False
        except BlockingIOError:
            raise Error(f"container {self.id[:12]}: its monitor does not answer (is it stopped?)") from None
        return True

    def connect(self) -> socket.socket:
        """A connection to the monitor. ConnectionRefusedError or FileNotFoundError if there is no monitor.
        BlockingIOError, of send too, if the monitor does not respond for MONITOR_TIMEOUT seconds."""
        import socket
        import struct

        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(MONITOR_TIMEOUT), 0))  # socket(7)
        fd = -1
        try:
            fd = self._entry.open()
            s.connect(f"/proc/self/fd/{fd}/control")  # fits into sun_path (unix(7)), whatever the path's length
        except BaseException:
            s.close()
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        return s

    def check_running(self, what: str) -> State:
        """The state. Error if the container does not run; ``what`` is the command."""
        state = self.state
        if not state.is_running:
            raise Error(f"{what} {self.id[:12]}: is not running ({state.status})")
        return state

    def refuse_image(self, what: str) -> None:
        """Error if the container is a virtual machine that runs and reads its root from an image; ``what`` is a command
        that needs a way to its files."""
        if self.config.spec.root_image is not None and self.state.is_running:
            raise Error(
                f"{what} {self.id[:12]}: its files are in the guest alone, above an image of ROOTFS (root_image)"
            )

    def _await_end(self, timeout: float | None) -> State | None:
        """Waits for the end of the container; returns the final state, or None if the state is lost."""
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
        """Waits for the end of a monitor; returns the final state, or None if the monitor was killed."""
        with ExitStack() as stack:
            pidfd = monitor.pidfd()
            if pidfd < 0:
                return None
            stack.callback(os.close, pidfd)
            final = stack.enter_context(FinalState(self.directory, monitor))
            if not pidfd_wait(pidfd, timeout):
                raise TimeoutError(f"container {self.id[:12]}: has not ended after {timeout:g} seconds")
            return final.read()

    def open_cgroup(self) -> Cgroup | None:
        """The container's cgroup, which the caller closes; None without one."""
        path = self._entry.cgroup()
        return Cgroup.open(path) if path and os.path.isdir(path) else None

    def _open_cgroup_of_running(self, what: str) -> Cgroup:
        self.check_running(what)
        cgroup = self.open_cgroup()
        if cgroup is None:
            raise Error(f"{what} {self.id[:12]}: has no cgroup (this host gives this user none: minicontainer doctor)")
        return cgroup

    def open_process(self, what: str) -> int:
        """A pidfd of process 1. Error if the container does not run; ``what`` is the command."""
        pidfd = self._process.pidfd() if self._process is not None else -1
        if pidfd < 0:
            self._process = self.check_running(what).process
            pidfd = self._process.pidfd() if self._process is not None else -1
        if pidfd < 0:
            raise Error(f"{what} {self.id[:12]}: is not running (its monitor is about to start it again, or to end)")
        return pidfd

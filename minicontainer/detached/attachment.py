"""``attach``: the streams of a running container: output from now on, and standard input.

    with c.attach() as a:
        a.send(b"hello\\n")
        for entry in a.read(): ...

Output is read from the log as it grows: so a slow reader blocks neither the program nor other readers. Input is sent to
the monitor, which receives more when the program has read the earlier input: ``send`` blocks until then."""

from __future__ import annotations

import errno
import os
import socket
import struct

from minicontainer.detached.finalstate import FinalState
from minicontainer.detached.logs import Log
from minicontainer.detached.store import NotFoundError
from minicontainer.errors import Error
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from minicontainer.detached.client import Client
    from minicontainer.detached.logs import Entry
else:
    from minicontainer.light import ExitStack

MESSAGE = 32768  # bytes of input in one request


class Attachment:
    """The streams of one container. ``log`` is readable for poll(2) when there may be output, ``ended`` (a pidfd) when
    the container has ended for good."""

    def __init__(self, container: Client) -> None:
        state = container.check_running("attach")
        self._container = container
        self._can_send = container.config.interactive or container.config.spec.tty
        self._id = container.id[:12]
        self.ended = state.monitor.pidfd() if state.monitor is not None else -1
        if self.ended < 0:
            raise Error(f"attach {self._id}: is not running")
        assert state.monitor is not None
        with ExitStack() as stack:
            stack.callback(os.close, self.ended)
            self.log = Log(container.directory)
            stack.callback(self.log.close)
            self._last = stack.enter_context(FinalState(container.directory, state.monitor))
            self.log.skip()
            self.socket = self._connect()
            stack.pop_all()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detaches; the container runs on."""
        if self.ended >= 0:
            os.close(self.ended)
            self.log.close()
            self._last.close()
            self.socket.close()
        self.ended = -1

    def read(self) -> Iterator[Entry]:
        """The output since the last call."""
        return self.log.read()

    def send(self, data: bytes) -> None:
        """Writes to the container's standard input. Error if that is not open (``interactive``)."""
        if not self._can_send:
            raise Error(f"attach {self._id}: its standard input is not open (run -i keeps it so)")
        view = memoryview(data)
        while view:
            self._send(bytes([lib.MC_REQUEST_INPUT]) + bytes(view[:MESSAGE]))
            view = view[MESSAGE:]

    def end_input(self) -> None:
        """Closes the container's standard input (no effect on a terminal)."""
        self._send(bytes([lib.MC_REQUEST_EOF]))

    def _send(self, data: bytes) -> None:
        """Sends a request; connects again if the monitor has disconnected this client in favour of another
        (csrc/monitor/control.c). BrokenPipeError: the monitor has ended."""
        try:
            self.socket.send(data)
        except (BrokenPipeError, ConnectionResetError):
            try:
                again = self._connect()
            except (FileNotFoundError, ConnectionRefusedError, NotFoundError):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), f"attach {self._id}") from None
            again.settimeout(self.socket.gettimeout())
            self.socket.close()
            self.socket = again
            again.send(data)

    def _connect(self) -> socket.socket:
        """A connection without a send timeout: input may wait for the program."""
        s = self._container.connect()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
        return s

    def end_code(self) -> int | None:
        """The exit code, once the container has ended; None if its monitor was killed."""
        state = self._last.read()
        return None if state is None else state.exit_code

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the container's terminal; does not wait for pending input."""
        self._container.send_request(lib.MC_REQUEST_WINDOW, rows, columns)

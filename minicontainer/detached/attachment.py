"""The streams of a running container: what it writes from now on, and what is said to its standard input.

    with c.attach() as a:
        a.send(b"hello\\n")
        for entry in a.read(): ...

Output is read from the log, as it grows: so a reader that stops stops nobody, and two readers see the same. Input is
said to the monitor, which takes more when the program has taken what there was: till then ``send`` waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

from minicontainer.detached.client import Handle
from minicontainer.detached.finalstate import LastWord
from minicontainer.detached.logs import Entry, Log
from minicontainer.detached.store import NotFoundError
from minicontainer.errors import Error
from minicontainer.native import lib

MESSAGE = 32768  # bytes of input said at once


class Attachment:
    """``log`` and ``ended`` are for poll(2): there may be output; it has ended for good."""

    def __init__(self, container: Handle) -> None:
        state = container.needs_running("attach")
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
            self._last = stack.enter_context(LastWord(container.directory, state.monitor))
            self.log.skip()
            self.socket = self._connect()
            stack.pop_all()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves it; it runs on."""
        if self.ended >= 0:
            os.close(self.ended)
            self.log.close()
            self._last.close()
            self.socket.close()
        self.ended = -1

    def read(self) -> Iterator[Entry]:
        """What there is of output and was not read before."""
        return self.log.read()

    def send(self, data: bytes) -> None:
        """To its standard input. Error where that is not open (``interactive``)."""
        if not self._can_send:
            raise Error(f"attach {self._id}: its standard input is not open (run -i keeps it so)")
        view = memoryview(data)
        while view:
            self._say(bytes([lib.MC_REQUEST_INPUT]) + bytes(view[:MESSAGE]))
            view = view[MESSAGE:]

    def end_input(self) -> None:
        """Closes its standard input (a terminal has no such end)."""
        self._say(bytes([lib.MC_REQUEST_EOF]))

    def _say(self, data: bytes) -> None:
        """The monitor drops who has said nothing for long, where many want to be heard: then once more.
        BrokenPipeError: it has ended."""
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
        """Without an end to its patience: input waits for the program."""
        found = self._container.connect()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
        return found

    def end_code(self) -> int | None:
        """Its exit code, once it has ended; None where its monitor was killed."""
        state = self._last.read()
        return None if state is None else state.exit_code

    def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal; does not wait for input that it does not take."""
        self._container.say(lib.MC_REQUEST_WINDOW, rows, columns)

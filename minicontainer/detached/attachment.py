"""The streams of a running container: what it writes from now on, and what is said to its standard input.

    with c.attach() as a:
        a.send(b"hello\\n")
        for entry in a.read(): ...

Output is read from the log, as it grows: so a reader that stops stops nobody, and two readers see the same. Input is
said to the monitor, which takes more when the program has taken what there was: till then ``send`` waits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from minicontainer.detached.handle import Handle, end_code, message
from minicontainer.detached.logs import Entry, Log
from minicontainer.errors import Error
from minicontainer.native import lib

MESSAGE = 32768  # bytes of input said at once


class Attachment:
    """``log`` and ``ended`` are for poll(2): there may be output; it has ended for good."""

    def __init__(self, container: Handle) -> None:
        state = container.needs_running("attach")
        self._can_send = container.config.interactive or container.config.spec.tty
        self._id = container.id[:12]
        self.ended = state.monitor.pidfd() if state.monitor is not None else -1
        if self.ended < 0:
            raise Error(f"attach {self._id}: is not running")
        self.log = Log(container.directory)
        try:
            self.log.skip()
            self.socket = container.connect()
        except BaseException:
            os.close(self.ended)
            self.log.close()
            raise

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves it; it runs on."""
        if self.ended >= 0:
            os.close(self.ended)
            self.log.close()
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
            self.socket.send(bytes([lib.MC_SAY_INPUT]) + bytes(view[:MESSAGE]))
            view = view[MESSAGE:]

    def end_input(self) -> None:
        """Closes its standard input (a terminal has no such end)."""
        self.socket.send(bytes([lib.MC_SAY_EOF]))

    def end_code(self) -> int | None:
        """Its exit code, once it has ended; None where its monitor was killed."""
        return end_code(self.socket)

    def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal."""
        self.socket.send(message(lib.MC_SAY_WINDOW, rows, columns))

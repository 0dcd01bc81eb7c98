"""One client's connection: packets in, replies out, while the machine stands; an interrupt, or its news, while it
runs."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

from minicontainer.kvm.debug.gdb.commands import OK, Commands, Leave, Resume, Stop
from minicontainer.kvm.debug.gdb.execution import Execution
from minicontainer.kvm.debug.gdb.packets import Decoder, Signal, encode
from minicontainer.kvm.result import Result

CHUNK = 65536
SIGILL, SIGSEGV, SIGTERM = 4, 11, 15  # in gdb's own numbering (gdb/signals.def)
FAULTS = {"triple-fault": SIGSEGV, "internal-error": SIGILL, "fail-entry": SIGILL}


class Gone(Exception):
    """The client has left, or is to."""


class Session:
    """Serves one client until it leaves, or the machine ends; then ``over`` is set.

    After an end that is the guest's mistake (FAULTS) the machine still stands to be looked at: such an end is told as a
    signal, and the guest's exit when the client lets it go on. KVM-AMD has by then reset one that shut down."""

    def __init__(self, connection: socket.socket, execution: Execution) -> None:
        self.over = threading.Event()
        self._connection, self._execution = connection, execution
        self._decoder = Decoder()
        self._commands = Commands(execution.target)
        self._with_acks = True
        self._last = b""
        self._is_running = False
        self._result: Result | None = None

    def ended(self, result: Result, patience: float | None) -> None:
        """For the thread whose run is over; waits, at most for ``patience`` seconds, while the client looks at a
        fault."""
        self._result = result
        self._execution.tell()
        if result.reason in FAULTS:
            self.over.wait(patience)

    def serve(self, is_closing: Callable[[], bool]) -> None:
        """The conversation."""
        try:
            stop = self._execution.attach()
            self._commands = Commands(self._execution.target)
            self._commands.stopped(stop)
            while not is_closing():
                self._turn()
            if self._is_running:
                self._farewell()
        except Gone:
            pass
        finally:
            self.over.set()

    def _turn(self) -> None:
        poll = select.poll()
        for fd in (self._execution.wake, self._connection.fileno()):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self._execution.wake in ready:
            self._execution.heard()
            self._news()
        if self._connection.fileno() in ready:
            self._receive()

    # ---- what the machine has to tell

    def _news(self) -> None:
        if not self._is_running:
            return
        if self._execution.has_stop():
            self._stopped(self._execution.stopped())
        elif self._result is not None:
            self._machine_ended(self._result)

    def _stopped(self, stop: Stop) -> None:
        self._is_running = False
        self._send(self._commands.stopped(stop))

    def _machine_ended(self, result: Result) -> None:
        if result.reason in FAULTS:
            self._console(result)
            self._stopped(Stop(result.vcpu, FAULTS[result.reason]))
        else:
            self._farewell()

    def _console(self, result: Result) -> None:
        """A line that the client shows."""
        self._send(b"O" + f"{result.reason}: {result.detail}\n".encode().hex().encode())

    def _farewell(self) -> None:
        """The guest's exit, or where there is none the signal that ended it."""
        result = self._result
        if result is not None and result.detail and result.reason not in FAULTS:
            self._console(result)
        self._send(b"X%02x" % SIGTERM if result is None else b"W%02x" % (result.returncode & 0xFF))
        raise Gone

    # ---- what the client has to say

    def _receive(self) -> None:
        try:
            data = self._connection.recv(CHUNK)
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        for event in self._decoder.feed(data):
            self._heard(event)

    def _heard(self, event: bytes | Signal) -> None:
        if isinstance(event, bytes):
            self._acknowledge(b"+")
            self._packet(event)
        elif event is Signal.BROKEN:
            self._acknowledge(b"-")
        elif event is Signal.NAK:
            self._put(self._last)
        elif event is Signal.INTERRUPT and self._is_running:
            self._stopped(self._execution.stopped())

    def _packet(self, packet: bytes) -> None:
        if packet == b"QStartNoAckMode":
            self._send(OK)
            self._with_acks = False
            return
        answer = self._commands.answer(packet) if not self._is_running or packet[:1] in b"Dkv" else None
        if isinstance(answer, Leave):
            self._leave(answer)
        elif self._is_running:
            pass  # the protocol has nothing for this time but an interrupt; leaving is kindly allowed
        elif isinstance(answer, Resume):
            self._resume(answer)
        elif answer is not None:
            self._send(answer)

    def _resume(self, resume: Resume) -> None:
        self._is_running = True
        if self._result is not None:  # it has ended while it stood
            self._farewell()
        self._execution.resume(resume.actions)

    def _leave(self, leave: Leave) -> None:
        if leave.kill:
            self._execution.kill()
        if leave.reply:
            self._send(leave.reply)
        raise Gone

    # ---- bytes

    def _acknowledge(self, sign: bytes) -> None:
        if self._with_acks:
            self._put(sign)

    def _send(self, content: bytes) -> None:
        self._last = encode(content)
        self._put(self._last)

    def _put(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            raise Gone from None

"""The connection of one client: packets and replies while the machine is stopped; interrupts and stop replies while it
runs."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

from minicontainer.kvm.debug.gdb.commands import OK, Commands, Disconnect, Resume, Stop
from minicontainer.kvm.debug.gdb.execution import Execution
from minicontainer.kvm.debug.gdb.packets import Decoder, Signal, encode
from minicontainer.kvm.result import Result

CHUNK = 65536
SIGILL, SIGSEGV, SIGTERM = 4, 11, 15  # gdb's numbers (gdb/signals.def)
FAULTS = {"triple-fault": SIGSEGV, "internal-error": SIGILL, "fail-entry": SIGILL}


class Disconnected(Exception):
    """The session is over."""


class Session:
    """Serves one client until it disconnects or the machine ends; then ``over`` is set.

    A fault of the guest (FAULTS) is reported as a signal, and the stopped machine can be inspected; the exit is
    reported when the client continues. After a triple fault KVM-AMD has already reset the processor."""

    def __init__(self, connection: socket.socket, execution: Execution) -> None:
        self.over = threading.Event()
        self._connection, self._execution = connection, execution
        self._decoder = Decoder()
        self._commands = Commands(execution.target)
        self._with_acks = True
        self._last = b""
        self._is_running = False
        self._result: Result | None = None

    def machine_ended(self, result: Result, timeout: float | None) -> None:
        """Called by the thread of the run at its end. After a fault it waits, at most ``timeout`` seconds, until the
        session is over."""
        self._result = result
        self._execution.notify()
        if result.reason in FAULTS:
            self.over.wait(timeout)

    def serve(self, is_closing: Callable[[], bool]) -> None:
        """Serves the client."""
        try:
            stop = self._execution.attach()
            self._commands = Commands(self._execution.target)
            self._commands.stopped(stop)
            while not is_closing():
                self._serve_once()
            if self._is_running:
                self._send_exit()
        except Disconnected:
            pass
        finally:
            self.over.set()

    def _serve_once(self) -> None:
        poll = select.poll()
        for fd in (self._execution.wake, self._connection.fileno()):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self._execution.wake in ready:
            self._execution.clear_notification()
            self._handle_notification()
        if self._connection.fileno() in ready:
            self._receive()

    # ---- from the machine to the client

    def _handle_notification(self) -> None:
        if not self._is_running:
            return
        if self._execution.has_stop():
            self._report_stop(self._execution.stopped())
        elif self._result is not None:
            self._report_end(self._result)

    def _report_stop(self, stop: Stop) -> None:
        self._is_running = False
        self._send(self._commands.stopped(stop))

    def _report_end(self, result: Result) -> None:
        if result.reason in FAULTS:
            self._console(result)
            self._report_stop(Stop(result.vcpu, FAULTS[result.reason]))
        else:
            self._send_exit()

    def _console(self, result: Result) -> None:
        """Sends a line that the client prints."""
        self._send(b"O" + f"{result.reason}: {result.detail}\n".encode().hex().encode())

    def _send_exit(self) -> None:
        """Reports the guest's exit; without a result, SIGTERM."""
        result = self._result
        if result is not None and result.detail and result.reason not in FAULTS:
            self._console(result)
        self._send(b"X%02x" % SIGTERM if result is None else b"W%02x" % (result.returncode & 0xFF))
        raise Disconnected

    # ---- from the client to the machine

    def _receive(self) -> None:
        try:
            data = self._connection.recv(CHUNK)
        except OSError:
            raise Disconnected from None
        if not data:
            raise Disconnected
        for event in self._decoder.feed(data):
            self._handle_event(event)

    def _handle_event(self, event: bytes | Signal) -> None:
        if isinstance(event, bytes):
            self._acknowledge(b"+")
            self._packet(event)
        elif event is Signal.BROKEN:
            self._acknowledge(b"-")
        elif event is Signal.NAK:
            self._put(self._last)
        elif event is Signal.INTERRUPT and self._is_running:
            self._report_stop(self._execution.stopped())

    def _packet(self, packet: bytes) -> None:
        if packet == b"QStartNoAckMode":
            self._send(OK)
            self._with_acks = False
            return
        answer = self._commands.answer(packet) if not self._is_running or packet[:1] in b"Dkv" else None
        if isinstance(answer, Disconnect):
            self._disconnect(answer)
        elif self._is_running:
            pass  # while the machine runs, the protocol allows an interrupt alone
        elif isinstance(answer, Resume):
            self._resume(answer)
        elif answer is not None:
            self._send(answer)

    def _resume(self, resume: Resume) -> None:
        self._is_running = True
        if self._result is not None:  # the run ended while the machine was stopped
            self._send_exit()
        self._execution.resume(resume.actions)

    def _disconnect(self, disconnect: Disconnect) -> None:
        if disconnect.kill:
            self._execution.kill()
        if disconnect.reply:
            self._send(disconnect.reply)
        raise Disconnected

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
            raise Disconnected from None

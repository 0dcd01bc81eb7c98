"""The TCP server for gdb: see ``Server``."""

from __future__ import annotations

import select
import signal
import socket
import threading
from typing import TypeVar

from minicontainer.errors import Error, SpecError, sentence
from minicontainer.kvm.debug.gdb.execution import Execution
from minicontainer.kvm.debug.gdb.session import Session
from minicontainer.kvm.machine import Machine
from minicontainer.kvm.result import Result
from minicontainer.native import now

HOST = "127.0.0.1"
CLOSE_TIMEOUT = 1.0  # seconds for a client to receive the last packet
Self = TypeVar("Self", bound="Server")


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of ``[HOST:]PORT``; an IPv6 address is in brackets."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise SpecError("gdb", text, "is no [HOST:]PORT, with a port from 0 to 65535")
    return host.removeprefix("[").removesuffix("]") or HOST, int(port)


class Server:
    """Listens for gdb on a TCP port until ``close()``; the machine waits before its first instruction:

        with Machine("2M") as m:
            m.load("kernel.elf")
            with gdb.Server(m, port=1234) as server:
                result = m.run()

    ``address``: where it listens (port 0: the kernel chooses one). gdb resumes the guest; when gdb detaches or its
    connection ends, the guest runs without it; a later gdb stops it again. At the end of the machine gdb receives its
    exit code. Every client of the port can read and change the guest: keep it on 127.0.0.1."""

    def __init__(self, machine: Machine, host: str = HOST, port: int = 0) -> None:
        machine.start()
        self._listener = _listen(host, port)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._machine = machine
        self._session: Session | None = None
        self._connection: socket.socket | None = None
        self._error: BaseException | None = None
        self._is_closing = False
        try:
            self._execution = Execution(machine)
        except BaseException:
            self._listener.close()
            raise
        self._thread = threading.Thread(target=self._main, name="gdb", daemon=True)
        machine.on_end = self._on_end
        machine.at_close(self.close)
        self._thread.start()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end()
        if kind is None:
            self._raise()

    def close(self) -> None:
        """Disconnects gdb, resumes the guest, and closes the port."""
        self._end()
        self._raise()

    def _end(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._machine.on_end = None
        self._execution.notify()
        self._thread.join(CLOSE_TIMEOUT)
        connection = self._connection
        if self._thread.is_alive() and connection is not None:
            connection.shutdown(socket.SHUT_RDWR)  # a client that does not read must not delay the end
        self._thread.join()
        self._execution.close()
        self._listener.close()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _on_end(self, result: Result) -> None:
        """Called by Machine.run at its end, in its thread: the run returns after this."""
        session, deadline = self._session, self._machine.board.deadline_ns
        if session is not None:
            session.machine_ended(result, max(0.0, (deadline - now()) / 1e9) if deadline else None)

    # ---- the server's thread

    def _main(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the thread in KVM_RUN
        try:
            while not self._is_closing:
                self._serve_one()
        except BaseException as error:
            self._error = error
        finally:
            self._execution.detach()

    def _serve_one(self) -> None:
        """Waits for a client or for the end; serves the client."""
        poll = select.poll()
        for fd in (self._execution.wake, self._listener.fileno()):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self._execution.wake in ready:
            self._execution.clear_notification()
        if self._is_closing or self._listener.fileno() not in ready:
            return
        try:
            self._connection, _ = self._listener.accept()
        except OSError:
            return  # the client has disconnected already
        with self._connection as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._session = Session(connection, self._execution)
            try:
                self._session.serve(lambda: self._is_closing)
            finally:
                self._session = None
                self._execution.detach()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _listen_error(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
        listener.setblocking(False)  # a client may disconnect before it is accepted
    except OSError as error:
        listener.close()
        raise _listen_error(host, port, error) from None
    return listener


def _listen_error(host: str, port: int, error: OSError) -> Error:
    return Error(sentence("gdb", f"{host}:{port}", error.strerror or str(error), "another port, or 0 for any"))

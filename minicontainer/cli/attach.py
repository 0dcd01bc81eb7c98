"""``minicontainer attach``: connect the caller's streams to those of a container, until it ends or the caller detaches.

Theory of operation. One poll loop moves bytes both ways; the caller's terminal is in raw mode meanwhile. Input that the
program does not read yet is held back, while its output is still shown.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from select import POLLIN, POLLOUT, poll
from typing import Any

import click

from minicontainer.cli.command import Command
from minicontainer.cli.names import container_argument, find
from minicontainer.errors import Error

DETACH = b"\x10\x11"  # Ctrl-P Ctrl-Q, docker's
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
ENDING = (signal.SIGTERM, signal.SIGHUP)  # signals that end this command too
CHUNK = 16384


@click.command("attach", cls=Command)
@click.option("--no-stdin", is_flag=True, help="Do not pass stdin.")
@container_argument()
def command(no_stdin: bool, container: str) -> int:
    """Show the output of CONTAINER from now on, and pass stdin to it (if it was started with -i or -t).

    If the container has a terminal, Ctrl-P Ctrl-Q detaches from it and leaves it running. Signals are forwarded to
    the container; SIGTERM and SIGHUP end this command too. The exit code is the container's.
    """
    target = find(container)
    try:
        with target.attach() as attached:
            config = target.config
            passes = not no_stdin and (config.interactive or config.spec.tty)
            session = Session(target, attached, passes, raw=passes and config.spec.tty and os.isatty(0))
            with session:
                left = session.run()
            code = 0 if left else attached.end_code()
    except _Ended as ended:
        os._exit(128 + ended.number)  # without a flush, which could block on a full pipe
    return 255 if code is None else code


class _Ended(BaseException):
    """A signal that ends this command has arrived."""

    def __init__(self, number: int) -> None:
        self.number = number


class Session:
    """The loop; ``run`` returns whether the caller detached."""

    def __init__(self, container: Any, attached: Any, passes: bool, *, raw: bool) -> None:
        self._container, self._attached, self._raw = container, attached, raw
        self._stdin_open = passes
        self._pending, self._ends = b"", False  # input, and the end of input, that are not sent yet
        self._partial = b""  # the first byte of DETACH, if it was typed last
        self._left = False

    def __enter__(self) -> Session:
        self._wake, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {n: signal.signal(n, self._forward) for n in (getattr(signal, name) for name in FORWARDED)}
        self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        self._attached.socket.setblocking(False)
        if self._raw:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
            self._resize()
        return self

    def __exit__(self, *_: object) -> None:
        if self._raw:
            try:
                termios.tcsetattr(0, termios.TCSANOW, self._saved)
            except termios.error:
                pass  # the terminal is gone
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._wake)
        os.close(self._write)

    def _forward(self, number: int, _frame: object) -> None:
        try:
            self._container.kill(number)
        except (Error, OSError):
            pass  # the container has ended, as the loop will see
        if number in ENDING:
            raise _Ended(number)

    def _resize(self) -> None:
        """Set the container's terminal to the size of the caller's; also the handler of SIGWINCH."""
        if self._raw:
            try:
                columns, rows = os.get_terminal_size(0)
                self._attached.resize(rows, columns)
            except (Error, OSError):
                pass  # the terminal is gone, or the monitor does not answer: the loop reports it

    def run(self) -> bool:
        """Move bytes until the container has ended (False) or the caller detaches (True)."""
        while not self._left:
            poller = poll()
            poller.register(self._attached.log, POLLIN)
            poller.register(self._attached.ended, POLLIN)
            poller.register(self._wake, POLLIN)
            if self._pending or self._ends:
                poller.register(self._attached.socket, POLLOUT)
            elif self._stdin_open:
                poller.register(0, POLLIN)
            ready = dict(poller.poll())
            self._show()
            if self._attached.ended in ready:
                self._show()
                return False
            if self._wake in ready:
                os.read(self._wake, 512)
            if 0 in ready:
                self._take()
            self._pass()
        return True

    def _show(self) -> None:
        for entry in self._attached.read():
            if entry.stream == "lost":
                continue
            out = sys.stdout.buffer if entry.stream == "stdout" else sys.stderr.buffer
            out.write(entry.data)
            out.flush()

    def _take(self) -> None:
        data = os.read(0, CHUNK)
        if not data:
            self._stdin_open, self._ends = False, True
        self._pending = self._keys(data) if self._raw else data

    def _keys(self, data: bytes) -> bytes:
        """The input without the detach keys."""
        data, self._partial = self._partial + data, b""
        before, detach, _ = data.partition(DETACH)
        if detach:
            self._left = True
            return before
        if data.endswith(DETACH[:1]):
            data, self._partial = data[:-1], DETACH[:1]
        return data

    def _pass(self) -> None:
        try:
            if self._pending:
                self._attached.send(self._pending)
                self._pending = b""
            if self._ends:
                self._attached.end_input()
                self._ends = False
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._pending, self._ends, self._stdin_open = b"", False, False

"""The serial console of a machine: stdin is sent to its serial port; a terminal is in raw mode meanwhile.

Theory of operation. C writes the guest's output to stdout. A thread reads stdin. From a terminal it reads everything,
so that the escape key always works; bytes that overrun the receive FIFO are lost, as on a real line. From a pipe or a
file it reads only as much as the guest takes, so nothing is lost.
"""

from __future__ import annotations

import _signal  # signal imports enum
import os
import sys
from select import POLLIN, poll

from minicontainer.kvm.threads import block_signals, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event, Thread
    from typing import Any

    from minicontainer.cli.vgascreen import Display
    from minicontainer.kvm.machine import Machine
else:
    from minicontainer.light import Event, Thread

ESCAPE = 0x01  # Ctrl-A
CHUNK = 1024
PATIENCE = 0.01  # seconds between two attempts to write to a full FIFO
WELCOME = "minicontainer: Ctrl-A x ends the machine, Ctrl-A h helps"
HELP = (
    "Ctrl-A x   end the machine\nCtrl-A h   this help\nCtrl-A Ctrl-A   send Ctrl-A\n"
    "Everything else, Ctrl-C too, goes to the guest."
)


class Console:
    """``with Console(machine): machine.run()``, after ``machine.start()``. ``display``: what draws on the terminal, if
    something does, and so has to show help and to be told when the terminal was used by others."""

    def __init__(self, machine: Machine, display: Display | None = None) -> None:
        self._machine, self._display = machine, display
        self._terminal = os.isatty(0)
        self._saved: list[Any] | None = None
        self._escaped = False
        self._over = Event()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._thread = Thread(target=self._read, daemon=True)

    def __enter__(self) -> Console:
        start(self._thread)
        try:
            if self._terminal:
                self._take_terminal()
        except BaseException:  # a signal that ends this process
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        os.write(self._waker, b"!")
        self._thread.join()
        os.close(self._wake)
        os.close(self._waker)
        if self._saved is not None:
            import termios

            _signal.signal(_signal.SIGCONT, self._before)
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            except termios.error:
                pass  # the terminal is gone

    def _take_terminal(self) -> None:
        import termios

        self._before = _signal.getsignal(_signal.SIGCONT)
        self._saved = termios.tcgetattr(0)
        _signal.signal(_signal.SIGCONT, lambda *_: self._resume())
        self._raw()
        if self._display is not None:
            self._display.note(WELCOME)
        else:
            print(WELCOME, file=sys.stderr, flush=True)

    def _resume(self) -> None:
        self._raw()
        if self._display is not None:
            self._display.redraw()

    def _help(self) -> None:
        if self._display is not None:
            self._display.note(HELP)
        else:
            os.write(2, f"\n{HELP}\n".replace("\n", "\r\n").encode())

    def _raw(self) -> None:
        """Set raw input, with output processing left on for guests that end lines with \\n alone. Repeated after a
        stop (SIGCONT)."""
        import termios
        import tty

        try:
            tty.setraw(0, termios.TCSANOW)
            mode = termios.tcgetattr(0)
            mode[1] |= termios.OPOST
            termios.tcsetattr(0, termios.TCSANOW, mode)
        except termios.error:
            pass

    def _read(self) -> None:
        block_signals()
        poller = poll()
        poller.register(0, POLLIN)
        poller.register(self._wake, POLLIN)
        while not self._over.is_set():
            ready = dict(poller.poll())
            if 0 not in ready or not self._take():
                return

    def _take(self) -> bool:
        """Move the bytes that can be read now to the serial port; False at the end of input."""
        try:
            data = os.read(0, CHUNK)
        except OSError:
            return False
        if not data:
            return False
        if self._terminal:
            self._machine.serial.input(self._keys(data), overrun=True)
            return True
        while data and not self._over.wait(0):
            data = data[self._machine.serial.input(data) :]
            if data:
                self._over.wait(PATIENCE)
        return True

    def _keys(self, data: bytes) -> bytes:
        """The bytes for the guest; escape sequences are handled here."""
        passed = bytearray()
        for byte in data:
            if not self._escaped:
                self._escaped = byte == ESCAPE
                if not self._escaped:
                    passed.append(byte)
                continue
            self._escaped = False
            if byte in b"xX":
                self._machine.stop()
            elif byte in b"hH?":
                self._help()
            elif byte == ESCAPE:
                passed.append(byte)
        return bytes(passed)

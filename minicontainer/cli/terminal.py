"""The caller's terminal passed through to the container's pty: raw outside, sizes followed, always restored.

Theory of operation. Bytes are moved by one poll loop (foreground.watch), and nothing is read that cannot be held
(LIMIT), so that a flood on one side waits for the other. A second description of our own terminal is written to
without blocking: a terminal that stands still (Ctrl-S) does not keep a signal or a timeout from its work. We hold the
container's end too, so that its pty lives as long as the container, whoever has it open there.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from select import POLLIN, POLLOUT, poll
from typing import Any

from minicontainer.native import lib

CHUNK = 65536
LIMIT = 1 << 20  # bytes held for a side that does not read


class Terminal:
    """Moves bytes between our terminal and ``master``, the container's pty.

    ``hung_up``: our terminal is gone (its window was closed, its connection broke)."""

    def __init__(self, master: int) -> None:
        self.hung_up = False
        self._master = master
        self._out = 1
        self._peer = -1
        self._to_master = bytearray()
        self._to_out = bytearray()
        self._input_open = True
        self._saved: list[Any] | None = None

    def __enter__(self) -> Terminal:
        os.set_blocking(self._master, False)
        self._peer = fcntl.ioctl(self._master, lib.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            self._out = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._out = 1  # another user's: written in blocking mode
        self._saved = termios.tcgetattr(0)
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._peer, self._out):
            if fd > 2:
                os.close(fd)
        if self._saved is not None:
            try:
                termios.tcsetattr(0, termios.TCSANOW, self._saved)
            except termios.error:
                pass  # it is gone

    def resume(self) -> None:
        """Raw mode and size: at the start, and when we were stopped and go on (a shell sets its own meanwhile)."""
        try:
            tty.setraw(0, termios.TCSANOW)
        except termios.error:
            pass  # ours is gone: hung_up will tell
        self.resize()

    def resize(self) -> None:
        """Gives the container's terminal the size of ours (SIGWINCH follows there by itself)."""
        try:
            size = fcntl.ioctl(1, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            pass

    def register(self, poller: Any) -> None:
        """What to wait for now."""
        _watch(poller, 0, POLLIN if self._input_open and len(self._to_master) < LIMIT else 0)
        _watch(poller, self._master, (POLLIN * (len(self._to_out) < LIMIT)) | (POLLOUT * bool(self._to_master)))
        _watch(poller, self._out, POLLOUT if self._to_out else 0)

    def move(self, ready: dict[int, int]) -> bytes:
        """Moves what can be moved now; what was typed."""
        typed = b""
        if 0 in ready:
            data = _read(0)
            self._input_open = data != b""
            self.hung_up |= data == b""
            typed = data or b""
            self._to_master += typed
        if ready.get(self._master, 0) & ~POLLOUT:
            self._to_out += _read(self._master) or b""
        if self._to_master:
            del self._to_master[: _write(self._master, self._to_master)]
        if self._out in ready:
            self._show()
        return typed

    def _show(self) -> None:
        try:
            del self._to_out[: _write(self._out, self._to_out[:4096] if self._out == 1 else self._to_out)]
        except OSError:
            self._to_out.clear()
            self.hung_up = True

    def finished(self, interrupt: int) -> bool:
        """After the end: shows what the container wrote last. False when ``interrupt`` is readable before all is."""
        while data := _read(self._master):
            self._to_out += data
        poller = poll()
        poller.register(self._out, POLLOUT)
        poller.register(interrupt, POLLIN)
        while self._to_out:
            if interrupt in dict(poller.poll()):
                return False
            self._show()
        return True


def _watch(poller: Any, fd: int, events: int) -> None:
    if events:
        poller.register(fd, events)
    else:
        try:
            poller.unregister(fd)
        except KeyError:
            pass


def _read(fd: int) -> bytes | None:
    """Bytes; b"" at the end (EIO: the terminal is gone); None when there is nothing yet."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(fd: int, data: bytearray) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0

"""Passes the caller's terminal through to the container's pty: raw mode, window size, and restoration at the end.

Theory of operation. One poll loop (foreground.watch) moves the bytes. It reads no more than it can buffer (LIMIT), so a
fast writer waits for a slow reader. It writes to the caller's terminal through a second, non-blocking file
description: a stopped terminal (Ctrl-S) does not delay signals or the time-out. It also holds the container's end of
the pty open, so that the pty lives as long as the container.
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
LIMIT = 1 << 20  # bytes that are buffered for a side that does not read


class Terminal:
    """Moves bytes between the caller's terminal and ``master``, the container's pty.

    ``hung_up``: the caller's terminal is gone (its window or connection was closed)."""

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
            self._out = 1  # another user's terminal: written in blocking mode
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
                pass  # the terminal is gone

    def resume(self) -> None:
        """Set raw mode and size: at the start, and after a stop (the shell changes the mode meanwhile)."""
        try:
            tty.setraw(0, termios.TCSANOW)
        except termios.error:
            pass  # the terminal is gone: ``move`` will set hung_up
        self.resize()

    def resize(self) -> None:
        """Set the pty to the size of the caller's terminal (the kernel sends SIGWINCH in the container)."""
        try:
            size = fcntl.ioctl(1, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            pass

    def register(self, poller: Any) -> None:
        """Register the descriptors and events to wait for."""
        _watch(poller, 0, POLLIN if self._input_open and len(self._to_master) < LIMIT else 0)
        _watch(poller, self._master, (POLLIN * (len(self._to_out) < LIMIT)) | (POLLOUT * bool(self._to_master)))
        _watch(poller, self._out, POLLOUT if self._to_out else 0)

    def move(self, ready: dict[int, int]) -> bytes:
        """Move the bytes that can be moved now; return the input."""
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
        """Write the remaining output after the end. False if ``interrupt`` becomes readable before all is written."""
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
    """Bytes; b"" at the end (EIO: the terminal is gone); None if there are none yet."""
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

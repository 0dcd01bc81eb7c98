"""The caller's terminal passed through to the container's pty: raw outside, sizes followed, always restored."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from select import POLLIN, POLLOUT
from typing import Any

CHUNK = 65536
LIMIT = 1 << 20  # bytes held for a side that does not read


class Terminal:
    """Moves bytes between our stdin/stdout and ``master``, the container's pty. Nothing is read that cannot be held."""

    def __init__(self, master: int) -> None:
        self.master = master
        self._to_master = b""
        self._to_stdout = b""
        self._input_open = True
        self._master_open = True
        self._saved: list[Any] | None = None

    def __enter__(self) -> Terminal:
        os.set_blocking(self.master, False)
        self.resize()
        self._saved = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

    def resize(self) -> None:
        """Gives the container's terminal the size of ours (SIGWINCH follows there by itself)."""
        size = fcntl.ioctl(1, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def register(self, poller: Any) -> None:
        """What to wait for now."""
        self._watch(poller, 0, POLLIN if self._input_open and len(self._to_master) < LIMIT else 0)
        wanted = (POLLIN if len(self._to_stdout) < LIMIT else 0) | (POLLOUT if self._to_master else 0)
        self._watch(poller, self.master, wanted if self._master_open else 0)
        self._watch(poller, 1, POLLOUT if self._to_stdout else 0)

    def _watch(self, poller: Any, fd: int, events: int) -> None:
        if events:
            poller.register(fd, events)
        else:
            try:
                poller.unregister(fd)
            except KeyError:
                pass

    def move(self, ready: dict[int, int]) -> None:
        """Moves what can be moved now."""
        if 0 in ready:
            data = self._read(0)
            self._input_open = bool(data)
            self._to_master += data
        if self.master in ready and self._master_open and ready[self.master] != POLLOUT:
            self._take()
        if self._to_master and self._master_open:
            self._to_master = self._to_master[self._write(self.master, self._to_master) :]
        if self._to_stdout and 1 in ready:
            self._to_stdout = self._to_stdout[self._write(1, self._to_stdout[:4096]) :]

    def _take(self) -> None:
        data = self._read(self.master)
        if data is None:
            return
        self._master_open = bool(data)
        self._to_stdout += data

    def finish(self) -> None:
        """After the end: what the container wrote last."""
        while self._master_open:
            before = len(self._to_stdout)
            self._take()
            if len(self._to_stdout) == before:
                break
        while self._to_stdout:
            self._to_stdout = self._to_stdout[self._write(1, self._to_stdout) :]

    def _read(self, fd: int) -> Any:
        """Bytes; b"" at the end (EIO: the other side of a pty is closed); None when there is nothing yet."""
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _write(self, fd: int, data: bytes) -> int:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0

"""A person at a terminal, for tests: the command line on a pty of its own, typed at and read from."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any

from box import CLI, HEEDING, Word

PATIENCE = 20.0


class Session:
    """The command line in a session of its own, whose controlling terminal is ``slave``; we hold ``master``."""

    def __init__(self, command: Sequence[Word], rows: int, columns: int) -> None:
        self.master, self.slave = os.openpty()
        self.seen = b""
        self.set_size(rows, columns)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *HEEDING, *map(str, command)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm"},  # of ncurses-base: there on every Debian
        )

    def set_size(self, rows: int, columns: int) -> None:
        """TIOCSWINSZ: the kernel sends SIGWINCH to the foreground process group."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def attributes(self) -> list[Any]:
        """termios(3)."""
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not self.attributes()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, text: str | bytes) -> None:
        """Writes all of it, while reading what comes."""
        data = text.encode() if isinstance(text, str) else text
        os.set_blocking(self.master, False)
        deadline = time.monotonic() + PATIENCE
        while data:
            assert time.monotonic() < deadline, f"{len(data)} bytes were not taken"
            _, writable, _ = select.select([], [self.master], [], 0.05)
            if writable:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self.master, data) :]
            self.read(0)

    def read(self, seconds: float) -> bytes:
        """What comes within that time, at most one piece."""
        try:
            readable, _, _ = select.select([self.master], [], [], seconds)
            if not readable:
                return b""
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other side open; or we have closed ours
            return b""
        self.seen += data
        return data

    def expect(self, pattern: str, seconds: float = PATIENCE) -> re.Match[bytes]:
        """Waits for a regular expression in what was not yet expected; forgets what came before its end."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern.encode(), self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} did not come, but {self.seen[-600:]!r}"
            self.read(0.05)
        self.seen = self.seen[match.end() :]
        return match

    def ends(self, seconds: float = PATIENCE) -> int:
        """Its exit code; what it still says is kept in ``seen``."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end, having said {self.seen[-600:]!r}"
            self.read(0.02)
        while self.read(0):
            pass
        return self.process.returncode

    def close(self) -> None:
        """Two interrupts end a container that still runs."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                time.sleep(0.05)  # a second one that comes too soon is one with the first
        try:
            self.ends()
        finally:
            self.process.kill()
            self._close()

    def _close(self) -> None:
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)


@contextlib.contextmanager
def session(*words: Word, rows: int = 24, columns: int = 80) -> Iterator[Session]:
    """``minicontainer`` with ``words`` at a terminal."""
    opened = Session([*CLI, *words], rows, columns)
    try:
        yield opened
    finally:
        opened.close()

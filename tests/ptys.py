"""Runs the command line on a pty, types at it and reads its output, as a person at a terminal."""

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
from pathlib import Path
from typing import Any

from box import CLI, HEEDING, Word, until

PATIENCE = 60.0


class Session:
    """The command line in a session whose controlling terminal is ``slave``; the test holds ``master``."""

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

    def await_job(self, name: str) -> None:
        """Waits until a program of this name (as proc(5) has it) is the foreground job of its terminal, of those that
        came of this session: a shell makes a job one only after it has echoed the line."""
        until(lambda: any(_is_job(pid, name) for pid in _descendants(self.process.pid)), PATIENCE)

    def is_raw(self) -> bool:
        return not self.attributes()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, text: str | bytes) -> None:
        """Write all of it while reading the output."""
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
        """Read once, if output arrives within that time."""
        try:
            readable, _, _ = select.select([self.master], [], [], seconds)
            if not readable:
                return b""
            data = os.read(self.master, 65536)
        except OSError:  # EIO: no process has the other side open, or this side is closed
            return b""
        self.seen += data
        return data

    def expect(self, pattern: str, seconds: float = PATIENCE) -> re.Match[bytes]:
        """Wait for a regular expression in the output after the previous match."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern.encode(), self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} was not printed, but {self.seen[-600:]!r}"
            self.read(0.05)
        self.seen = self.seen[match.end() :]
        return match

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for the end; the exit code. ``seen`` keeps the rest of the output."""
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


def _descendants(pid: int) -> Iterator[int]:
    """The process, its children, and theirs."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return  # it has ended
    for child in children:
        yield from _descendants(int(child))


def _is_job(pid: int, name: str) -> bool:
    """Whether the process leads the foreground process group of its terminal, and executes ``name``."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    word, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    return word == name and fields[2] == fields[5] == str(pid)  # pgrp and tpgid: fields 5 and 8


@contextlib.contextmanager
def session(*words: Word, rows: int = 24, columns: int = 80, program: Sequence[Word] = CLI) -> Iterator[Session]:
    """``minicontainer`` (or another program) with ``words`` at a terminal."""
    opened = Session([*program, *words], rows, columns)
    try:
        yield opened
    finally:
        opened.close()

"""Two Ctrl-C within a second kill a program that ignores SIGINT.

Theory of operation. The caller's terminal is raw, so Ctrl-C is a byte, which the container's terminal turns into SIGINT
for its foreground job. If that job is process 1, and it has no handler, the kernel drops the signal
(pid_namespaces(7)). An interactive shell is never killed: it catches SIGINT, or reads the byte itself, or has another
job in the foreground.
"""

from __future__ import annotations

import _signal  # signal imports enum
import os
import termios
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.process import Popen

WITHIN = 1.0  # seconds
LFLAG, CC = 3, 6  # of tcgetattr


class Interrupts:
    """Counts the interrupts that the user types and ``process`` ignores."""

    def __init__(self, process: Popen[bytes]) -> None:
        self._process = process
        self._times: list[float] = []  # of the last two

    def is_second(self, typed: bytes) -> bool:
        """Whether ``typed``, which was just sent to the container's terminal, contains the second ignored interrupt."""
        if not typed:
            return False
        try:
            key = self._key()
            if not key or key not in typed or not self._is_ignored():
                return False
        except (OSError, termios.error):
            return False  # the container has ended
        self._times = [*self._times, *[monotonic()] * typed.count(key)][-2:]
        return len(self._times) == 2 and self._times[1] - self._times[0] <= WITHIN

    def _key(self) -> bytes:
        """The terminal's interrupt character (termios(3)); b"" in raw mode."""
        attributes = termios.tcgetattr(self._process.terminal)
        key: bytes = attributes[CC][termios.VINTR]
        return key if attributes[LFLAG] & termios.ISIG and key != b"\0" else b""

    def _is_ignored(self) -> bool:
        """Whether the program itself is the foreground job, and neither catches nor blocks the signal."""
        leader = os.tcgetpgrp(self._process.terminal)
        with open(f"/proc/{leader}/status", encoding="ascii", errors="replace") as f:
            status = dict(line.split(":\t", 1) for line in f if ":\t" in line)
        program = leader == self._process.pid
        if self._process.spec.init:
            program = int(status["PPid"]) == self._process.pid
        handled = int(status["SigCgt"], 16) | int(status["SigBlk"], 16)
        return program and not handled >> (_signal.SIGINT - 1) & 1

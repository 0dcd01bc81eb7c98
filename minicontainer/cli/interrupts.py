"""Ctrl-C at a terminal where nobody inside heeds it: the second within a second is the way out.

Theory of operation. Our terminal is raw, so Ctrl-C is a byte, of which the container's terminal makes SIGINT for its
foreground job. Where that job is process 1's own, and it has no handler, the kernel drops the signal
(pid_namespaces(7)). Who has an interactive shell keeps it, however often Ctrl-C is typed: a shell catches SIGINT, or
reads the byte itself, or has another job in the foreground.
"""

from __future__ import annotations

import os
import signal
import termios
from collections import deque
from time import monotonic

from minicontainer.container.process import Popen

WITHIN = 1.0  # seconds
LFLAG, CC = 3, 6  # of tcgetattr


class Interrupts:
    """Counts those that are typed for ``process`` and not heeded."""

    def __init__(self, process: Popen[bytes]) -> None:
        self._process = process
        self._times: deque[float] = deque(maxlen=2)

    def ask_for_the_end(self, typed: bytes) -> bool:
        """Whether ``typed``, which has gone to the container's terminal just now, holds the second."""
        if not typed:
            return False
        try:
            key = self._key()
            if not key or key not in typed or not self._is_unheeded():
                return False
        except (OSError, termios.error):
            return False  # it has ended
        self._times.extend([monotonic()] * typed.count(key))
        return len(self._times) == 2 and self._times[1] - self._times[0] <= WITHIN

    def _key(self) -> bytes:
        """What the container's terminal makes an interrupt of (termios(3)); b"" while a program takes all as it is."""
        attributes = termios.tcgetattr(self._process.terminal)
        key: bytes = attributes[CC][termios.VINTR]
        return key if attributes[LFLAG] & termios.ISIG and key != b"\0" else b""

    def _is_unheeded(self) -> bool:
        """Whether the program itself is the foreground job, and neither catches the signal nor waits for it."""
        leader = os.tcgetpgrp(self._process.terminal)
        with open(f"/proc/{leader}/status", encoding="ascii", errors="replace") as f:
            status = dict(line.split(":\t", 1) for line in f if ":\t" in line)
        program = leader == self._process.pid
        if self._process.spec.init:
            program = int(status["PPid"]) == self._process.pid
        heeded = int(status["SigCgt"], 16) | int(status["SigBlk"], 16)
        return program and not heeded >> (signal.SIGINT - 1) & 1

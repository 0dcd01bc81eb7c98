"""The threads of a machine's processors: the caller's is the first one's, the others have their own.

Signals are the caller's: the other threads block all but the kick (csrc/kvm/vcpu.c), so that an interrupt reaches the
thread whose KVM_RUN it is to end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

from minicontainer.errors import UnsupportedError
from minicontainer.kvm.drive import Processor
from minicontainer.kvm.result import Outcome
from minicontainer.native import lib

PATIENCE = 0.01  # seconds until a thread that has not ended is kicked again
IDLE, IDLE_MAX = 0.1, 2.0  # seconds


def run(processors: Sequence[Processor], board: Any) -> Outcome | None:
    """Runs all until the first brings the end about, and then stops the others. What one raises is raised here.
    ``board.stop`` ends it at once, and is off afterwards."""
    try:
        if not board.irqchip:
            return _run(processors, board)
        with Watch(processors, board):
            return _run(processors, board)
    finally:
        board.stop = 0


def _run(processors: Sequence[Processor], board: Any) -> Outcome | None:
    if len(processors) == 1:
        return processors[0].run()
    team = _Team(board)
    threads = [threading.Thread(target=team.member, args=(p,), daemon=True) for p in processors[1:]]
    try:
        for thread in threads:
            start(thread)
        team.run(processors[0])
    finally:
        _join(team, threads)
    if team.error is not None:
        raise team.error
    return team.outcome


def start(thread: threading.Thread) -> None:
    """UnsupportedError: the system gives no thread."""
    try:
        thread.start()
    except RuntimeError:  # Python keeps the errno to itself: EAGAIN of clone(2), or no memory for its stack
        reason = "the system gives no more of them"
        raise UnsupportedError("threads", None, reason, "ulimit -u, ulimit -v, pids.max") from None


def _join(team: _Team, threads: Sequence[threading.Thread]) -> None:
    """Waits for their end, whatever signals raise meanwhile: a processor that went on would outlive its memory."""
    raised: BaseException | None = None
    are_alive = True
    while are_alive:
        try:
            team.end()
            alive = [thread for thread in threads if thread.is_alive()]  # not all need have been started
            for thread in alive:
                thread.join(PATIENCE)
            are_alive = bool(alive)
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised


class Watch:
    """Finds a machine that stands still for good, where HLT is the kernel's (csrc/kvm/vcpu.c, is_dead): when no
    processor has used any time for a while, each is brought out to see whether it could ever be woken."""

    def __init__(self, processors: Sequence[Processor], board: Any) -> None:
        self._processors, self._board = processors, board
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        start(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        before, pause, looks = -1.0, IDLE, 0
        while not self._over.wait(pause):
            used = sum(lib.mc_vcpu_thread_ns(p.control) for p in self._processors) / 1e9
            if used - before > 0.01 * pause:
                pause = IDLE
            else:
                looks += 1
                self._look(looks)
                pause = min(2 * pause, IDLE_MAX)
            before = used

    def _look(self, number: int) -> None:
        """The board is set to it only while all are brought out: what one found earlier is not true for ever."""
        self._board.halted, self._board.look = 0, number
        kick(self._processors)
        self._over.wait(IDLE / 2)
        self._board.look = 0


def kick(processors: Sequence[Processor]) -> None:
    """Brings every processor out of its guest, to look at the board."""
    for processor in processors:
        processor.kick()


class _Team:
    """What the threads of one run tell each other."""

    def __init__(self, board: Any) -> None:
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._board = board
        self._lock = threading.Lock()
        self._running: list[Processor] = []
        self._over = False

    def member(self, processor: Processor) -> None:
        """A thread of its own."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.run(processor)
        except BaseException as error:
            with self._lock:
                self.error = self.error or error
            self._stop()

    def run(self, processor: Processor) -> None:
        """One processor to its end, which is then everybody's."""
        with self._lock:
            if self._over:
                return  # a thread that begins after the end, for whose start a signal did not let us wait
            self._running.append(processor)
        outcome = processor.run()
        with self._lock:
            self.outcome = self.outcome or outcome
        self._stop()

    def end(self) -> None:
        """Stops all; from now on none begins."""
        with self._lock:
            self._over = True
        self._stop()

    def _stop(self) -> None:
        self._board.stop = 1
        with self._lock:
            kick(self._running)

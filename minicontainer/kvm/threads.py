"""The threads of a machine's processors: the first processor runs in the calling thread, each other in its own.

The other threads block all signals except the kick (csrc/kvm/vcpu.c), so that a signal for the process is delivered to
the calling thread, and ends its KVM_RUN.
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

RETRY_INTERVAL = 0.01  # seconds until a thread that has not ended is kicked again
IDLE, IDLE_MAX = 0.1, 2.0  # seconds between two checks for an idle machine


def run(processors: Sequence[Processor], board: Any) -> Outcome | None:
    """Runs all processors until one of them ends the machine, then stops the others. An exception of any thread is
    raised here. ``board.stop`` ends the run at once, and is cleared at its end."""
    try:
        if not board.irqchip:
            return _run(processors, board)
        with IdleWatcher(processors, board):
            return _run(processors, board)
    finally:
        board.stop = 0


def _run(processors: Sequence[Processor], board: Any) -> Outcome | None:
    if len(processors) == 1:
        return processors[0].run()
    shared = _SharedRun(board)
    threads = [threading.Thread(target=shared.thread_main, args=(p,), daemon=True) for p in processors[1:]]
    try:
        for thread in threads:
            start(thread)
        shared.run(processors[0])
    finally:
        _join(shared, threads)
    if shared.error is not None:
        raise shared.error
    return shared.outcome


def start(thread: threading.Thread) -> None:
    """Starts a thread. UnsupportedError: the system allows no more threads."""
    try:
        thread.start()
    except RuntimeError:  # without errno: EAGAIN of clone(2), or no memory for its stack
        reason = "the system gives no more of them"
        raise UnsupportedError("threads", None, reason, "ulimit -u, ulimit -v, pids.max") from None


def _join(shared: _SharedRun, threads: Sequence[threading.Thread]) -> None:
    """Waits for all threads to end, even if signal handlers raise: a running processor must not outlive its memory."""
    raised: BaseException | None = None
    are_alive = True
    while are_alive:
        try:
            shared.end()
            alive = [thread for thread in threads if thread.is_alive()]  # some may not have been started
            for thread in alive:
                thread.join(RETRY_INTERVAL)
            are_alive = bool(alive)
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised


class IdleWatcher:
    """Detects a machine that is halted for ever, if KVM handles HLT (csrc/kvm/vcpu.c, all_halted): when the processors
    have used no time for a while, each leaves KVM_RUN to check whether an interrupt could wake it."""

    def __init__(self, processors: Sequence[Processor], board: Any) -> None:
        self._processors, self._board = processors, board
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> IdleWatcher:
        start(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        before, pause, checks = -1.0, IDLE, 0
        while not self._is_over.wait(pause):
            used = sum(lib.mc_vcpu_thread_ns(p.control) for p in self._processors) / 1e9
            if used - before > 0.01 * pause:
                pause = IDLE
            else:
                checks += 1
                self._check_halted(checks)
                pause = min(2 * pause, IDLE_MAX)
            before = used

    def _check_halted(self, number: int) -> None:
        """Makes all processors check whether they are halted. ``halt_check`` is reset afterwards: a processor that is
        kicked later for another reason must not be counted."""
        self._board.halted, self._board.halt_check = 0, number
        kick(self._processors)
        self._is_over.wait(IDLE / 2)
        self._board.halt_check = 0


def kick(processors: Sequence[Processor]) -> None:
    """Makes every processor leave its guest and check the board."""
    for processor in processors:
        processor.kick()


class _SharedRun:
    """The state that the threads of one run share: outcome, error, running processors."""

    def __init__(self, board: Any) -> None:
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._board = board
        self._lock = threading.Lock()
        self._running: list[Processor] = []
        self._is_over = False

    def thread_main(self, processor: Processor) -> None:
        """The main function of a processor's thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.run(processor)
        except BaseException as error:
            with self._lock:
                self.error = self.error or error
            self._stop()

    def run(self, processor: Processor) -> None:
        """Runs a processor to its end, then stops the others."""
        with self._lock:
            if self._is_over:
                return  # the run ended before this thread started: a signal handler raised an exception
            self._running.append(processor)
        outcome = processor.run()
        with self._lock:
            self.outcome = self.outcome or outcome
        self._stop()

    def end(self) -> None:
        """Stops all processors; no other processor starts any more."""
        with self._lock:
            self._is_over = True
        self._stop()

    def _stop(self) -> None:
        self._board.stop = 1
        with self._lock:
            kick(self._running)

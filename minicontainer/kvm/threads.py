"""The threads of a machine's processors: the first processor runs in the calling thread, each other in its own.

The other threads block all signals except the kick (csrc/kvm/vcpu.c), so that a signal for the process is delivered to
the calling thread, and ends its KVM_RUN.
"""

from __future__ import annotations

import _signal  # signal imports enum
from _thread import allocate_lock

from minicontainer.errors import UnsupportedError
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event, Thread
    from typing import Any

    from minicontainer.kvm.drive import Processor
    from minicontainer.kvm.result import Outcome
else:
    from minicontainer.light import Event, Thread

RETRY_INTERVAL = 0.01  # seconds until a thread that has not ended is kicked again
IDLE, IDLE_MAX = 0.1, 2.0  # seconds between two checks for an idle machine


class Turns:
    """Whose turn a machine is, to run or to be closed: one caller's at a time, and nobody waits.

    A signal handler may raise after any call. So what takes a turn is the first call of a ``try``, and what gives it
    back is the first one of its ``finally``; a lock could stay held."""

    def __init__(self) -> None:
        self._callers: list[object] = []
        self.take, self.give_back = self._callers.append, self._callers.remove

    def is_mine(self, caller: object) -> bool:
        """Whether the caller, who has called ``take``, was the first."""
        return self._callers[0] is caller

    def __bool__(self) -> bool:
        """Whether it is anybody's."""
        return bool(self._callers)


def run(processors: Sequence[Processor], board: Any) -> Outcome | None:
    """Runs all processors until one of them ends the machine, then stops the others. An exception of any thread is
    raised here. ``board.stop`` ends the run at once, and is cleared at its end."""
    try:
        if not board.irqchip:
            return _run(processors, board)
        watcher = IdleWatcher(processors, board)
        try:
            watcher.start()
            return _run(processors, board)
        finally:
            watcher.is_over = True  # before a call, in which a signal handler may raise
            watcher.end()
    finally:
        board.stop = 0


def _run(processors: Sequence[Processor], board: Any) -> Outcome | None:
    if len(processors) == 1:
        return processors[0].run()
    shared = _SharedRun(board)
    threads = [Thread(target=shared.thread_main, args=(p,), daemon=True) for p in processors[1:]]
    try:
        for thread in threads:
            start(thread)
        shared.run(processors[0])
    finally:
        _join(shared, threads)
    if shared.error is not None:
        raise shared.error
    return shared.outcome


def block_signals() -> None:
    """In a thread: signals for the process go to others."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())


def start(thread: Thread) -> None:
    """Starts a thread. UnsupportedError: the system allows no more threads."""
    try:
        thread.start()
    except RuntimeError:  # without errno: EAGAIN of clone(2), or no memory for its stack
        reason = "the system gives no more of them"
        raise UnsupportedError("threads", None, reason, "ulimit -u, ulimit -v, pids.max") from None


def _join(shared: _SharedRun, threads: Sequence[Thread]) -> None:
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
        self.is_over = False
        self._wakes = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Starts its thread."""
        start(self._thread)

    def end(self) -> None:
        """Waits for its thread, which otherwise would see ``is_over`` at its next check."""
        self._wakes.set()
        self._thread.join()

    def _watch(self) -> None:
        block_signals()
        before, pause, checks = -1.0, IDLE, 0
        while not self._wakes.wait(pause) and not self.is_over:
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
        self._wakes.wait(IDLE / 2)
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
        self._lock = allocate_lock()
        self._running: list[Processor] = []
        self._is_over = False

    def thread_main(self, processor: Processor) -> None:
        """The main function of a processor's thread."""
        block_signals()
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

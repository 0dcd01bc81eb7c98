"""The gate at which a machine's processors are stopped for a debugger.

Theory of operation. A processor's thread passes the gate when it starts, after every kick (csrc/kvm/vcpu.c), and when
it reports a stop; while the gate holds it, it waits there. When all have stopped, the caller of ``stop_all`` may use
their descriptors: an ioctl on a processor in KVM_RUN would wait until KVM_RUN returns. A processor outside
``Machine.run`` counts as stopped. A thread leaves the gate when the run ends, and at its deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from minicontainer.kvm.drive import Processor
from minicontainer.kvm.exits import GuestEnd
from minicontainer.native import lib, now

RETRY_INTERVAL = 0.01  # seconds until a processor that has not stopped is kicked again


class Gate:
    """Holds every processor from its creation until ``release``."""

    def __init__(self, processors: Sequence[Processor], board: Any) -> None:
        self._processors, self._board = processors, board
        self._all = frozenset(p.number for p in processors)
        self._held = set(self._all)
        self._stopped: set[int] = set()
        self._ended = False
        self._change = threading.Condition()  # of the state above; its lock is reentrant, for signal handlers

    # ---- called by a processor's thread

    def wait(self, processor: Processor) -> None:
        """Waits until the processor is released or has to check the board. GuestEnd after ``end``."""
        number = processor.number
        with self._change:
            if number in self._held:
                self._stopped.add(number)
                self._change.notify_all()
                try:
                    while number in self._held and not self._board.stop and self._time_left() != 0:
                        self._change.wait(self._time_left())
                finally:
                    self._stopped.discard(number)
                    processor.control.left_ns = 0  # this time is not part of an exit; the deadline is checked
            if self._ended:
                raise GuestEnd("stopped")

    def _time_left(self) -> float | None:
        deadline = self._board.deadline_ns
        return max(0.0, (deadline - now()) / 1e9) if deadline else None

    def wake(self) -> None:
        """Makes all waiting threads check again: a run is over, or the board has changed."""
        with self._change:
            self._change.notify_all()

    # ---- called by the debugger

    def hold(self) -> None:
        """Requests that every processor stops; does not wait for it."""
        with self._change:
            self._held.update(self._all)
            self._kick()

    def stop_all(self) -> None:
        """Stops every processor, and waits until all have stopped."""
        with self._change:
            self.hold()
            while not all(map(self._is_stopped, self._processors)):
                self._change.wait(RETRY_INTERVAL)
                self._kick()

    def release(self, numbers: Iterable[int] | None = None) -> None:
        """Lets these processors (None: all) continue."""
        with self._change:
            self._held.difference_update(self._all if numbers is None else numbers)
            self._change.notify_all()

    def end(self) -> None:
        """Ends the run, or the next one, with the reason "stopped"."""
        with self._change:
            self._ended = True
            self._held.clear()
            self._kick()
            self._change.notify_all()

    def _is_stopped(self, processor: Processor) -> bool:
        return processor.number in self._stopped or processor.control.thread == 0

    def _kick(self) -> None:
        for processor in self._processors:
            if not self._is_stopped(processor):
                lib.mc_vcpu_kick(processor.control)

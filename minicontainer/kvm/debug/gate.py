"""Where a machine's processors stand while somebody looks at them.

Theory of operation. A processor's thread comes to the gate when it begins, after every kick (csrc/kvm/vcpu.c), and when
it has something to tell; while the gate holds it, it stands there. Once all stand, whoever called ``settle`` has their
descriptors to itself: an ioctl on a processor that is in KVM_RUN would wait for its end. A processor that is in no
``Machine.run`` stands too. The end of a run, whoever brings it about, and the run's deadline lead out of the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from minicontainer.kvm.drive import Processor
from minicontainer.kvm.exits import GuestEnd
from minicontainer.native import lib, now

PATIENCE = 0.01  # seconds until one that has not come is kicked again


class Gate:
    """Holds every processor from the start, until ``release``."""

    def __init__(self, processors: Sequence[Processor], board: Any) -> None:
        self._processors, self._board = processors, board
        self._all = frozenset(p.number for p in processors)
        self._held = set(self._all)
        self._standing: set[int] = set()
        self._ended = False
        self._change = threading.Condition()  # of any of these; its lock may be taken twice, by a signal's handler

    # ---- for a processor's thread

    def wait(self, processor: Processor) -> None:
        """Stands until it may go on, or is to see what the board says. GuestEnd after ``end``."""
        number = processor.number
        with self._change:
            if number in self._held:
                self._standing.add(number)
                self._change.notify_all()
                try:
                    while number in self._held and not self._board.stop and self._time_left() != 0:
                        self._change.wait(self._time_left())
                finally:
                    self._standing.discard(number)
                    processor.control.left_ns = 0  # this time is no exit's, and the deadline is looked at anew
            if self._ended:
                raise GuestEnd("stopped")

    def _time_left(self) -> float | None:
        deadline = self._board.deadline_ns
        return max(0.0, (deadline - now()) / 1e9) if deadline else None

    def wake(self) -> None:
        """All who wait look again: a run is over, or the board says something new."""
        with self._change:
            self._change.notify_all()

    # ---- for whoever looks

    def hold(self) -> None:
        """Every processor is to come; does not wait for them."""
        with self._change:
            self._held.update(self._all)
            self._kick()

    def settle(self) -> None:
        """Holds every processor, and waits until all stand."""
        with self._change:
            self.hold()
            while not all(map(self._stands, self._processors)):
                self._change.wait(PATIENCE)
                self._kick()

    def release(self, numbers: Iterable[int] | None = None) -> None:
        """These (None: all) may go on."""
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

    def _stands(self, processor: Processor) -> bool:
        return processor.number in self._standing or processor.control.thread == 0

    def _kick(self) -> None:
        for processor in self._processors:
            if not self._stands(processor):
                lib.mc_vcpu_kick(processor.control)

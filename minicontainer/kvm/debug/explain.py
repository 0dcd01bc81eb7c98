"""The timeline of a machine: every ioctl before the guest's first instruction, then the exits."""

from __future__ import annotations

from minicontainer.kvm.debug.trace import Exit
from minicontainer.plan.timeline import Event, Timeline

EXITS_MAX = 200  # exits in the table; the others are only counted


class Recorder:
    """Records the events: ``Machine(watch=recorder)``, and ``recorder.exit`` for a Tracer. ``phase``: the current
    phase."""

    def __init__(self) -> None:
        self.phase = "create"
        self.entered = 0  # time of the first KVM_RUN
        self.omitted = 0
        self._events: list[Event] = []
        self._exits = 0

    def __call__(self, call: str, start: int, end: int, result: int) -> None:
        """The ``watch`` of a descriptor. A KVM_RUN is reported here only if a signal ended it."""
        if call.startswith("KVM_RUN"):
            self._run(Event("host", "run", call, start, end, result))
        else:
            self._events.append(Event("host", self.phase, call, start, end, result))

    def exit(self, exit_: Exit) -> None:
        """One exit: KVM_RUN from its call to its return."""
        call = f"KVM_RUN: {exit_.reason} {exit_.access()}".rstrip()
        self._run(Event(f"cpu{exit_.vcpu}", "run", call, exit_.entered, exit_.left, 0))

    def _run(self, event: Event) -> None:
        self.entered = self.entered or event.start
        self._exits += 1
        if self._exits > EXITS_MAX:
            self.omitted += 1
        else:
            self._events.append(event)

    @property
    def timeline(self) -> Timeline:
        """The events, sorted by time."""
        return Timeline.of(sorted(self._events, key=lambda e: e.start))

    def summary(self) -> str:
        """A line below the table: the time of the guest's first instruction, and the number of omitted exits."""
        first = min((e.start for e in self._events), default=0)
        text = (
            f"first guest instruction after {(self.entered - first) / 1000:.1f} us" if self.entered else "never entered"
        )
        return text + (f"; {self.omitted} more exits are not shown" if self.omitted else "")

"""The timeline of a machine: every ioctl until the first instruction of the guest, and then its exits."""

from __future__ import annotations

from minicontainer.kvm.debug.trace import Exit
from minicontainer.plan.timeline import Event, Timeline

SHOWN = 200  # exits: of a guest's many more than that only the number is told


class Recorder:
    """Collects them: ``Machine(watch=recorder)``, and its ``exit`` for a Tracer. ``phase`` names what is being done."""

    def __init__(self) -> None:
        self.phase = "create"
        self.entered = 0  # when the guest was first entered
        self.omitted = 0
        self._events: list[Event] = []
        self._exits = 0

    def __call__(self, call: str, start: int, end: int, result: int) -> None:
        """A descriptor's watch; of KVM_RUN it is told where a signal ended it, which is no exit."""
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
        if self._exits > SHOWN:
            self.omitted += 1
        else:
            self._events.append(event)

    @property
    def timeline(self) -> Timeline:
        """All of it, by time."""
        return Timeline.of(sorted(self._events, key=lambda e: e.start))

    def summary(self) -> str:
        """What the table does not say: when the guest began, and how many exits it leaves out."""
        first = min((e.start for e in self._events), default=0)
        text = (
            f"first guest instruction after {(self.entered - first) / 1000:.1f} us" if self.entered else "never entered"
        )
        return text + (f"; {self.omitted} more exits are not shown" if self.omitted else "")

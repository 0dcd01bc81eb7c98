"""The timeline of a start: the records of parent and child, in order, as events and as text."""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it
import errno
import os
from _collections_abc import Sequence  # collections.abc imports collections

from minicontainer.native import ffi
from minicontainer.plan.language import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NamedTuple, overload

    Call = tuple[str, str, int, int, int]  # phase, call, start, end, result
else:
    from minicontainer.records import NamedTuple, overload

RECORD = struct.Struct("=QQq")  # struct mc_record
if RECORD.size != ffi.sizeof("struct mc_record"):
    raise ImportError("minicontainer: timeline.py and native.h disagree about a record")


class Event(NamedTuple):
    """One call that was made. Times in nanoseconds of CLOCK_MONOTONIC; ``end`` 0: the call never returned."""

    side: str  # "parent", "child", or "guest"
    phase: str
    call: str
    start: int
    end: int
    result: int  # the call's return value, or -errno

    @property
    def seconds(self) -> float:
        """Its duration."""
        return max(0, self.end - self.start) / 1e9


class Timeline(Sequence[Event]):
    """The events of one run, sorted by time. They are made from the raw records at the first access.

    parent       the parent's own calls: (phase, call, start, end, result)
    plan         the child's plan, with its ``records`` (struct mc_record[])
    started      when clone3 returned to the parent, which is the end of the child's exec
    others       (side, plan, records) of the parent-side plan, and of a plan that was walked in a virtual machine
    """

    def __init__(
        self,
        parent: Iterable[Call],
        plan: Plan | None,
        records: bytes,
        started: int,
        others: Iterable[tuple[str, Plan, bytes]] = (),
    ) -> None:
        self._parent, self._started = parent, started
        self._walks = list(others)
        if plan is not None:
            self._walks.append(("child", plan, records))
        self._events: list[Event] | None = None
        self._make: Callable[[], Timeline] | None = None

    @classmethod
    def later(cls, make: Callable[[], Timeline]) -> Timeline:
        """A timeline that is made at the first access."""
        timeline = cls.__new__(cls)
        timeline._events, timeline._make = None, make
        return timeline

    @classmethod
    def of(cls, events: Iterable[Event]) -> Timeline:
        """A timeline of these events."""
        timeline = cls((), None, b"", 0)
        timeline._events = list(events)
        return timeline

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its events, without plan and records."""
        return Timeline.of, (tuple(self.events),)

    def __eq__(self, other: object) -> bool:
        return self.events == other.events if isinstance(other, Timeline) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def events(self) -> list[Event]:
        """All events, sorted by their start."""
        make, events = self._make, self._events  # in this order: another thread may be here too
        if make is not None:
            events = make().events
        elif events is None:
            unsorted = [Event("parent", *call) for call in self._parent] + list(self._child_and_parent_plan())
            events = sorted(unsorted, key=lambda e: (e.start, -e.end))
        self._events = events
        self._make = None
        return events

    def _child_and_parent_plan(self) -> Iterator[Event]:
        for side, plan, records in self._walks:
            for step, (start, end, result) in zip(plan.steps, RECORD.iter_unpack(records), strict=False):
                if start:
                    ended = end or (self._started if step.call.startswith("exec") else 0)
                    yield Event(side, step.phase, step.describe(), start, ended, result)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self.events[index]

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        events = self.events
        took = (max(max(e.start, e.end) for e in events) - events[0].start) / 1e9 if events else 0.0
        return f"<minicontainer.Timeline: {len(events)} events in {took:.6f} s>"

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        from html import escape

        first = self.events[0].start if self.events else 0
        head = "".join(f"<th>{name}</th>" for name in ("at us", "took us", "side", "phase", "primitive", "result"))
        rows = [
            (f"{(e.start - first) / 1000:.1f}", f"{e.seconds * 1e6:.1f}" if e.end else "?", e.side, e.phase, e.call,
             _result(e) if e.end else "")
            for e in self.events
        ]  # fmt: skip
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def phases(self) -> dict[tuple[str, str], float]:
        """(side, phase) -> seconds, in the order of the phases' first events. clone3 is not summed: its time includes
        the child's steps, since the parent sleeps in it until the child's exec."""
        sums: dict[tuple[str, str], float] = {}
        for event in self.events:
            key = (event.side, event.phase)
            sums[key] = sums.get(key, 0.0) + (0.0 if self._encloses(event) else event.seconds)
        return sums

    def _encloses(self, event: Event) -> bool:
        return event.call.startswith("clone3(")

    def format(self) -> str:
        """The table that ``--explain`` prints: microseconds since the first event, each call, the sum per phase."""
        if not self.events:
            return "no events"
        first = self.events[0].start
        lines = ["   at us    took  side    primitive"]
        for e in self.events:
            result = f" = {_result(e)}"
            took = f"{e.seconds * 1e6:7.1f}" if e.end else "      ?"
            lines.append(f"{(e.start - first) / 1000:8.1f} {took}  {e.side:6}  {e.call}{result if e.end else ''}")
        lines.append("")
        lines.append("     sum  side    phase")
        lines += [f"{seconds * 1e6:8.1f}  {side:6}  {phase}" for (side, phase), seconds in self.phases().items()]
        return "\n".join(lines)

    def as_dict(self) -> list[dict[str, object]]:
        """The events as data: microseconds since the first."""
        first = self.events[0].start if self.events else 0
        return [
            {
                "side": e.side,
                "phase": e.phase,
                "call": e.call,
                "at_us": (e.start - first) / 1000,
                "took_us": (e.end - e.start) / 1000 if e.end else None,
                "result": e.result if e.result >= 0 else None,
                "error": os.strerror(-e.result) if e.result < 0 else None,
            }
            for e in self.events
        ]


def _result(event: Event) -> str:
    return str(event.result) if event.result >= 0 else f"-1 {errno.errorcode.get(-event.result, '')}"

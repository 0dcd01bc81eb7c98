"""A plan, and the builder that collects its steps."""

from __future__ import annotations

from minicontainer.native import lib
from minicontainer.plan.encoding import Frame, encode
from minicontainer.plan.step import Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from dataclasses import dataclass

    from minicontainer.plan.encoding import Encoded, Part
else:
    from minicontainer.records import dataclass


@dataclass(frozen=True)
class Plan:
    """Steps, and ``inputs``: the names of the slots that the caller fills."""

    steps: tuple[Step, ...]
    inputs: tuple[str, ...] = ()

    def __init__(self, steps: Iterable[Step], inputs: Iterable[str] = (), encoded: Encoded | None = None) -> None:
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "_encoded", encoded)

    def __reduce__(self) -> tuple[type[Plan], tuple[object, ...]]:
        return Plan, (self.steps, self.inputs)  # the encoding is not pickled

    def describe(self) -> str:
        """The plan as text: a line for each step, grouped by phase."""
        lines, phase = [], None
        for step in self.steps:
            if step.phase != phase:
                phase = step.phase
                lines.append(f"# {phase}")
            lines.append(f"  {step.describe()}")
        return "\n".join(lines)

    # Cached by hand, not by functools.cached_property: until Python 3.12 that has one lock for all instances, which
    # another thread may hold when this process forks.

    @property
    def buffer(self) -> bytes:
        """The flat form that C walks."""
        return self.encoded().buffer

    @property
    def slots(self) -> dict[str, int]:
        """Slot name -> index: the inputs first, then each step's ``into``."""
        return self.encoded().slots

    @property
    def nstrings(self) -> int:
        """The most pointers that one exec step needs, NULLs included."""
        return self.encoded().nstrings

    def encoded(self) -> Encoded:
        """The encoding, made and checked by C at the first call, then cached."""
        encoded: Encoded | None = self.__dict__["_encoded"]
        if encoded is None:
            encoded = _checked(encode(self.steps, self.inputs))
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    def forget_encoding(self) -> None:
        """Frees the encoding, of some kilobytes; it is made anew when it is needed."""
        self.__dict__["_encoded"] = None

    def with_parts(self, parts: Mapping[int, Part], make: Callable[[], Sequence[Step]]) -> Plan:
        """A plan with other steps at these indexes: ``parts`` is what C walks, and ``make`` returns the steps when they
        are read. The plan's other steps are encoded once for all plans that differ at the same indexes."""
        indexes = tuple(parts)
        encoded = _checked(self.frame(indexes).complete(parts))
        return LikePlan(self, encoded, lambda: dict(zip(indexes, make(), strict=True)).get)

    def frame(self, indexes: tuple[int, ...]) -> Frame:
        """The plan without the steps at these indexes; made at the first call."""
        frames: dict[tuple[int, ...], Frame] = self.__dict__.setdefault("_frames", {})
        frame = frames.get(indexes)
        if frame is None:
            frame = frames[indexes] = Frame(self.steps, self.inputs, indexes)
        return frame

    def keep_frame(self, indexes: tuple[int, ...], frame: Frame) -> None:
        """Takes a frame that was made before, of an equal plan."""
        self.__dict__.setdefault("_frames", {})[indexes] = frame


def _checked(encoded: Encoded) -> Encoded:
    if lib.mc_plan_check(encoded.buffer, len(encoded.buffer)) < 0:
        raise ValueError("plan: its steps do not encode to a sound buffer")
    return encoded


class LikePlan(Plan):
    """A plan whose encoding was made from that of ``other``. ``steps`` are made at their first use, from those of
    ``other``: a start that succeeds needs the buffer alone."""

    def __init__(self, other: Plan, encoded: Encoded, changed: Callable[[], Callable[[int, Step], Step]]) -> None:
        """``changed`` returns a function of the index and the other plan's step."""
        self.__dict__.update(inputs=other.inputs, _encoded=encoded, _other=other, _changed=changed)

    def __getattr__(self, name: str) -> tuple[Step, ...]:
        if name != "steps":
            raise AttributeError(name)
        make = self.__dict__["_changed"]()
        steps = self.__dict__["steps"] = tuple(
            make(i, step)._replace(phase=step.phase) for i, step in enumerate(self.__dict__["_other"].steps)
        )
        return steps


class LatePlan(Plan):
    """A plan whose steps are made when they are read."""

    def __init__(self, inputs: tuple[str, ...], make: Callable[[], Plan], encoded: Encoded | None = None) -> None:
        self.__dict__.update(inputs=inputs, _make=make, _encoded=None if encoded is None else _checked(encoded))

    def __getattr__(self, name: str) -> tuple[Step, ...]:
        if name != "steps":
            raise AttributeError(name)
        steps = self.__dict__["steps"] = self.__dict__["_make"]().steps
        return steps  # type: ignore[no-any-return]


class Builder:
    """Builds a plan: ``add(step, ...)`` appends steps, each with the current ``phase``."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.inputs: list[str] = []
        self.phase = ""

    def input(self, name: str) -> Slot:
        """The slot of an input, which the caller fills."""
        if name not in self.inputs:
            self.inputs.append(name)
        return Slot(name)

    def add(self, *steps: Step) -> None:
        """Appends steps in the current phase."""
        phase = (self.phase,)
        self.steps += [tuple.__new__(Step, step[:-1] + phase) for step in steps]

    def optional(self, step: Step, *then: Step, missing: Sequence[int]) -> None:
        """Appends a step that may fail with an errno of ``missing``, and the steps ``then``, which run only if it
        succeeded."""
        self.add(step._replace(tolerate=tuple(missing), skip=len(then)), *then)

    def plan(self) -> Plan:
        """The plan of the steps that were added."""
        return Plan(self.steps, self.inputs)

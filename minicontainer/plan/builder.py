"""A plan, and the builder that collects its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minicontainer.native import lib
from minicontainer.plan.encoding import Encoded, encode
from minicontainer.plan.step import Slot, Step


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
            encoded = encode(self.steps, self.inputs)
            if lib.mc_plan_check(encoded.buffer, len(encoded.buffer)) < 0:
                raise ValueError("plan: its steps do not encode to a sound buffer")
            object.__setattr__(self, "_encoded", encoded)
        return encoded


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
        self.steps += [s._replace(phase=self.phase) for s in steps]

    def optional(self, step: Step, *then: Step, missing: Sequence[int]) -> None:
        """Appends a step that may fail with an errno of ``missing``, and the steps ``then``, which run only if it
        succeeded."""
        self.add(step._replace(tolerate=tuple(missing), skip=len(then)), *then)

    def plan(self) -> Plan:
        """The plan of the steps that were added."""
        return Plan(self.steps, self.inputs)

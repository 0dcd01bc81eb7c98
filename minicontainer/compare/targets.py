"""Targets of a comparison: what each ratio may be at the most, and whether the figures keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from minicontainer.compare.statistics import Samples


class Target(NamedTuple):
    """``name`` takes at most ``most`` times as long as ``base``; with ``own``, what it takes beyond ``own``."""

    name: str
    base: str
    most: float
    own: str = ""

    def __str__(self) -> str:
        what = f"({self.name} - {self.own})" if self.own else self.name
        return f"{what} / {self.base}"

    def ratio(self, samples: Sequence[Samples]) -> float | None:
        """The median of the ratios within each round; None where a contender was not measured."""
        by_name = {s.name: s.nanoseconds for s in samples}
        if not {self.name, self.base, *filter(None, [self.own])} <= by_name.keys():
            return None
        own = by_name[self.own] if self.own else [0] * len(by_name[self.name])
        rounds = zip(by_name[self.name], by_name[self.base], own, strict=True)
        return median((a - c) / b for a, b, c in rounds)


class Limit(NamedTuple):
    """The figure ``name``, which has its unit, is ``most`` at the most."""

    name: str
    most: float


def within(limits: Sequence[Limit], figures: Mapping[str, float]) -> list[dict[str, object]]:
    """As ``judged``, of figures by name; ``ratio`` is the figure."""
    found = []
    for name, most in limits:
        value = figures.get(name)
        found.append({"target": name, "most": most, "ratio": value, "kept": None if value is None else value <= most})
    return found


def judged(targets: Sequence[Target], samples: Sequence[Samples]) -> list[dict[str, object]]:
    """Each target with its ratio and whether it is kept; None: it was not measured."""
    found = []
    for target in targets:
        ratio = target.ratio(samples)
        kept = None if ratio is None else ratio <= target.most
        found.append({"target": str(target), "most": target.most, "ratio": ratio, "kept": kept})
    return found


def lines(judged_targets: Sequence[dict[str, object]]) -> list[str]:
    """The targets as text, a line each."""
    words = {True: "kept", False: "MISSED", None: "not measured"}
    return [
        f"{words[t['kept']]}: {t['target']}"  # type: ignore[index]
        + ("" if t["ratio"] is None else f" {t['ratio']:.2f}")
        + f" (at most {t['most']:.2f})"
        for t in judged_targets
    ]

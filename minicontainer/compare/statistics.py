"""Samples, percentiles and the table of results. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple


class Samples(NamedTuple):
    """The times of one contender in nanoseconds, in the order of the rounds."""

    name: str
    nanoseconds: list[int]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the least value that at least ``percent`` of all do not exceed."""
    if not values:
        raise ValueError("no samples")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))  # ceiling
    return ordered[int(rank) - 1]


def paired_ratio(samples: Samples, base: Samples) -> float:
    """The median of the ratios within each round: disturbances that affect a whole round cancel out."""
    return median(a / b for a, b in zip(samples.nanoseconds, base.nanoseconds, strict=True))


def paired_difference(samples: Samples, base: Samples) -> float:
    """The median of the differences within each round, in nanoseconds."""
    return median(a - b for a, b in zip(samples.nanoseconds, base.nanoseconds, strict=True))


def row(samples: Samples, floor: Samples | None) -> dict[str, object]:
    """One contender's figures; times in microseconds, ``ratio`` of the medians to the floor's."""
    p50 = percentile(samples.nanoseconds, 50)
    return {
        "name": samples.name,
        "n": len(samples.nanoseconds),
        "p50_us": p50 / 1000,
        "p99_us": percentile(samples.nanoseconds, 99) / 1000,
        "ratio": p50 / percentile(floor.nanoseconds, 50) if floor else None,
    }


def compared(samples: Sequence[Samples], floor: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """``rows`` of all contenders, and the ``paired`` ratios of the pairs that were measured."""
    base = next((s for s in samples if s.name == floor), None)
    return {
        "rows": [row(s, base) for s in samples],
        "paired": {f"{a.name} / {b.name}": paired_ratio(a, b) for a, b in measured(samples, pairs)},
    }


def differences(samples: Sequence[Samples], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """By pair, the median of the differences within each round, in microseconds."""
    return {f"{a.name} - {b.name}": paired_difference(a, b) / 1000 for a, b in measured(samples, pairs)}


def measured(samples: Sequence[Samples], pairs: Sequence[tuple[str, str]]) -> list[tuple[Samples, Samples]]:
    """The pairs whose members were both measured."""
    by_name = {s.name: s for s in samples}
    return [(by_name[a], by_name[b]) for a, b in pairs if {a, b} <= by_name.keys()]


def table(rows: Sequence[dict[str, object]], heading: str = "contender", digits: int = 0, versus: str = "floor") -> str:
    """The rows as a text table; times with ``digits`` decimals. ``versus``: the base of the ratios."""
    width = max([len(str(r["name"])) for r in rows] + [len(heading)])
    lines = [f"{heading:{width}}      n    p50 us    p99 us {f'x {versus}':>8}"]
    for r in rows:
        ratio = f"{r['ratio']:8.2f}" if r["ratio"] is not None else "        "
        lines.append(f"{r['name']:{width}} {r['n']:6} {r['p50_us']:9.{digits}f} {r['p99_us']:9.{digits}f} {ratio}")
    return "\n".join(lines)

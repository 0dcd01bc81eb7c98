"""Targets of a comparison are kept, missed, or not measured."""

from __future__ import annotations

from minicontainer.compare.statistics import Samples
from minicontainer.compare.targets import Target, judged, lines

SAMPLES = [Samples("a", [10, 30, 20]), Samples("b", [10, 10, 10]), Samples("own", [5, 15, 10])]


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert Target("a", "b", 2).ratio(SAMPLES) == 2
    assert Target("a", "b", 2, "own").ratio(SAMPLES) == 1
    assert Target("a", "c", 2).ratio(SAMPLES) is None
    assert Target("a", "b", 2, "other").ratio(SAMPLES) is None


def test_each_target_is_a_line() -> None:
    targets = (Target("a", "b", 2), Target("a", "b", 1.99), Target("a", "b", 1, "own"), Target("a", "c", 3))
    found = judged(targets, SAMPLES)
    assert [each["kept"] for each in found] == [True, False, True, None]
    assert lines(found) == [
        "kept: a / b 2.00 (at most 2.00)",
        "MISSED: a / b 2.00 (at most 1.99)",
        "kept: (a - own) / b 1.00 (at most 1.00)",
        "not measured: a / c (at most 3.00)",
    ]

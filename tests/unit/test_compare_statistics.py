"""Percentiles, ratios, the table: figures that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.compare.statistics import Samples, compared, paired_difference, paired_ratio, percentile, row, table


def test_nearest_rank() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(values, p) for p in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@given(st.lists(st.integers(1, 10**9), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_sample_that_enough_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(v <= found for v in values) * 100 >= percent * len(values)
    assert sum(v < found for v in values) * 100 < percent * len(values)


def test_a_paired_ratio_cancels_what_disturbs_a_round() -> None:
    base = Samples("base", [100, 100, 100_000, 100])
    assert paired_ratio(Samples("other", [120, 120, 120_000, 120]), base) == 1.2


def test_a_paired_difference_is_that_of_the_middle_round() -> None:
    base = Samples("base", [100, 5_000, 300])
    assert paired_difference(Samples("other", [101, 5_003, 290]), base) == 1
    assert paired_difference(base, base) == 0


def test_only_those_that_were_measured_are_compared() -> None:
    one, two = Samples("one", [2000, 4000, 6000]), Samples("two", [1000, 2000, 3000])
    found = compared([one, two], "two", [("one", "two"), ("two", "three")])
    assert found["paired"] == {"one / two": 2.0}
    assert [r["ratio"] for r in found["rows"]] == [2.0, 1.0]
    assert [r["ratio"] for r in compared([one], "two", [])["rows"]] == [None]


def test_a_row_and_the_table() -> None:
    floor = Samples("floor", [1_000_000, 2_000_000, 3_000_000])
    other = Samples("a longer name", [4_000_000, 5_000_000, 6_000_000])
    assert row(other, floor) == {"name": "a longer name", "n": 3, "p50_us": 5000, "p99_us": 6000, "ratio": 2.5}
    text = table([row(floor, floor), row(other, floor)])
    assert text.splitlines()[1].split() == ["floor", "3", "2000", "3000", "1.00"]
    assert text.splitlines()[2].split()[-4:] == ["3", "5000", "6000", "2.50"]
    text = table([row(other, None)], "one exit", 2, "qemu")
    assert text.splitlines()[0].split() == ["one", "exit", "n", "p50", "us", "p99", "us", "x", "qemu"]
    assert text.splitlines()[1].split()[-3:] == ["3", "5000.00", "6000.00"]

"""Tables, and what people are told of times and sizes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import tables
from minicontainer.cli.tables import ago, bytes_text, colored, duration, printable, table


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "less than a second"),
        (0.9, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (172800, "2 days"),
        (1209600, "2 weeks"),
        (5184000, "2 months"),
        (63072000, "2 years"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
    assert ago(1000.0, 1000.0 + seconds) == f"{said} ago"
    assert ago(None) == ""


@pytest.mark.parametrize(
    ("number", "said"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1024, "1.0 KiB"), (150 * 1024, "150 KiB"), (2**20, "1.0 MiB")],
)
def test_sizes(number: int | None, said: str) -> None:
    assert bytes_text(number) == said


@given(st.integers(0, 2**63))
def test_a_size_is_short(number: int) -> None:
    assert bytes_text(number).split()[1] in ("B", "KiB", "MiB", "GiB")


def test_columns_stand_below_each_other() -> None:
    assert table(["A", "LONG"], [["1", "2"], ["333", ""]]) == "A     LONG\n1     2\n333"


def test_a_narrow_terminal_cuts_what_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.sys.stdout, "isatty", lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setattr(tables.shutil, "get_terminal_size", lambda: os.terminal_size((30, 24)))  # type: ignore[attr-defined]
    lines = table(["ID", "COMMAND"], [["0" * 12, "x" * 100]], ["COMMAND"]).split("\n")
    assert lines[1] == "0" * 12 + "   " + "x" * 14 + "…"
    assert table(["ID"], [["0" * 50]]).split("\n")[1] == "0" * 50


def test_colours_are_for_terminals() -> None:
    assert colored("text", "running") == "text"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_shown(text: str) -> None:
    assert printable(text).isprintable()

"""How a screen is drawn on a terminal: from cells to control sequences."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli.vgascreen import cells, line, noted, render, rendition, window
from minicontainer.kvm.screen import GLYPHS, Frame

WIDE = 200, 100


def frame(*lines: str, cursor: tuple[int, int] | None = None, blinks: bool = True) -> Frame:
    return Frame([cells(line) for line in lines], cursor, blinks, "")


def texts(view: Frame) -> list[str]:
    return [row[::2].decode() for row in view.rows]


@pytest.mark.parametrize(
    ("attribute", "blinks", "codes"),
    [
        (0x07, True, "0;37;40"),
        (0x1F, True, "0;97;44"),  # blue behind bright white
        (0x64, True, "0;31;43"),  # brown behind red
        (0x87, True, "0;5;37;40"),
        (0x87, False, "0;37;100"),
        (0xF9, False, "0;94;107"),
        (0xF9, True, "0;5;94;47"),
        (0x23, False, "0;36;42"),
    ],
)
def test_attributes_are_renditions(attribute: int, blinks: bool, codes: str) -> None:
    assert rendition(attribute, blinks) == f"\x1b[{codes}m"


def test_a_rendition_is_sent_where_it_changes() -> None:
    assert line(b"a\x07b\x07c\x1fd\x07", True) == "\x1b[0;37;40mab\x1b[0;97;44mc\x1b[0;37;40md"


def test_only_changed_lines_are_drawn() -> None:
    one, two = frame("ab", "cd", cursor=(0, 0)), frame("ab", "ce", cursor=(1, 1))
    assert render(one, one) == ""
    assert render(two, one) == "\x1b[?25l\x1b[2;1H\x1b[0;37;40mce\x1b[2;2H\x1b[?25h"
    assert render(one._replace(cursor=None), one) == "\x1b[?25l"
    assert render(one._replace(cursor=(1, 0)), one) == "\x1b[?25l\x1b[2;1H\x1b[?25h"


def test_all_is_drawn_where_lines_have_other_lengths_or_are_unknown() -> None:
    wanted = "\x1b[?25l\x1b[0m\x1b[2J\x1b[1;1H\x1b[0;37;40mab"
    assert render(frame("ab"), None) == wanted
    for shown in (frame("abc"), frame("ab", "cd"), frame(), frame("ab", blinks=False)):
        assert render(frame("ab"), shown) == wanted


def test_a_small_terminal_shows_what_fits() -> None:
    full = frame("abc", "def", "ghi", cursor=(0, 1))
    assert window(full, WIDE) == full
    assert window(full, (2, 2)) == frame("ab", "de", cursor=(0, 1))
    assert window(full, (1, 3)) == frame("a", "d", "g")  # the cursor is beyond the edge
    assert window(full._replace(cursor=None), (3, 1)) == frame("abc")


def test_the_line_of_the_cursor_is_always_shown() -> None:
    full = frame("a", "b", "c", "d")
    assert window(full._replace(cursor=(3, 0)), (5, 2)) == frame("c", "d", cursor=(1, 0))
    assert window(full._replace(cursor=(2, 0)), (5, 2)) == frame("b", "c", cursor=(1, 0))


def test_why_there_is_no_text_is_told_in_lines() -> None:
    assert texts(window(Frame([], None, True, "switched to graphics"), (8, 2))) == ["switched", " to grap"]


def test_a_note_is_below_the_screen_or_over_its_end() -> None:
    view = frame("a", "b", "c")
    assert noted(view, [], WIDE) is view
    below = noted(view, ["x", "y"], (4, 9))
    assert texts(below) == ["a", "b", "c", "x   ", "y   "]
    assert {row[1::2] for row in below.rows[3:]} == {b"\x70" * 4}
    assert texts(noted(view, ["x"], (1, 3))) == ["a", "b", "x"]
    assert texts(noted(view, ["x", "y"], (1, 1))) == ["x"]


ROWS = st.integers(1, 6).flatmap(lambda width: st.lists(st.binary(min_size=2 * width, max_size=2 * width), max_size=5))
FRAMES = st.builds(Frame, ROWS, st.none() | st.tuples(st.integers(0, 4), st.integers(0, 5)), st.booleans(), st.just(""))


class Terminal:
    """What a terminal shows that was sent these sequences."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self.at, self.rendition, self.cursor = (0, 0), "", True

    def take(self, sent: str) -> None:
        for match in re.finditer(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", sent, re.DOTALL):
            values, kind, character = match.groups()
            if character:
                self.cells[self.at] = character, self.rendition
                self.at = self.at[0], self.at[1] + 1
            elif kind == "H":
                y, x = values.split(";")
                self.at = int(y) - 1, int(x) - 1
            elif kind == "m":
                self.rendition = values
            elif kind == "J":
                self.cells.clear()
            else:
                assert values == "?25"
                self.cursor = kind == "h"


@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 6))
def test_a_terminal_that_is_sent_the_changes_shows_the_screen(frames: list[Frame], columns: int, lines: int) -> None:
    terminal, shown = Terminal(), None
    for one in frames:
        view = window(one, (columns, lines))
        terminal.take(render(view, shown))
        shown = view
        wanted = {
            (y, x): (GLYPHS[row[2 * x]], rendition(row[2 * x + 1], view.blinks)[2:-1])
            for y, row in enumerate(view.rows)
            for x in range(len(row) // 2)
        }
        assert terminal.cells == wanted
        assert terminal.cursor == (view.cursor is not None)
        assert view.cursor is None or terminal.at == view.cursor
        assert len(view.rows) <= lines

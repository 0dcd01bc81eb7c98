"""The security probe's lines, and what is made of them: any text is a report or an Error, and no half of one passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli.security import as_data, as_text, compared, counts
from minicontainer.compare.security import OURS, worse
from minicontainer.container.security import END, VERDICTS, Check, by_area, parse
from minicontainer.errors import Error

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\t\n"), max_size=20)
CHECKS = st.lists(
    st.builds(Check, WORDS.filter(bool), WORDS.filter(bool), st.sampled_from(VERDICTS), WORDS),
    min_size=1,
    max_size=20,
    unique_by=lambda check: check[:2],
)


def written(checks: list[Check]) -> str:
    """As the probe writes them."""
    return "".join("\t".join(check) + "\n" for check in checks) + f"{END}\n"


@given(CHECKS)
def test_what_is_written_is_read(checks: list[Check]) -> None:
    assert parse(written(checks)) == checks


@given(CHECKS, st.data())
def test_no_part_of_a_report_is_one(checks: list[Check], data: st.DataObject) -> None:
    text = written(checks)
    with pytest.raises(Error):
        parse(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.one_of(st.text(), st.text(alphabet="\t\nend pasfil").map(lambda text: f"{text}\n{END}\n")))
def test_any_text_is_a_report_or_an_error_of_one_line(text: str) -> None:
    said: list[Check] | str
    try:
        said = parse(text)
    except Error as e:
        said = str(e)
    assert said
    assert isinstance(said, list) or len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "end\n",
        "a\tb\tpass\tx\na\tb\tfail\tx\nend\n",
        "a\tb\tmaybe\tx\nend\n",
        "a\tb\tpass\nend\n",
        "\tb\tpass\t\nend\n",
    ],
)
def test_nothing_is_taken_for_granted(text: str) -> None:
    with pytest.raises(Error, match="security probe"):
        parse(text)


@given(CHECKS)
def test_every_check_is_shown_once(checks: list[Check]) -> None:
    shown = list(as_text(checks))
    assert len(shown) == len(checks) + 2 * len(by_area(checks)) + 1
    assert sum(counts(checks)) == len(checks)
    assert sum(len(each) for each in as_data(checks).values()) == len(checks)


OPEN, SHUT = Check("area", "one", "fail", "permitted"), Check("area", "one", "pass", "EPERM")
UNKNOWN = Check("area", "one", "skip", "not told")


@pytest.mark.parametrize(
    ("ours", "theirs", "is_worse"),
    [(OPEN, SHUT, True), (OPEN, OPEN, False), (OPEN, UNKNOWN, False), (SHUT, OPEN, False), (UNKNOWN, SHUT, False)],
)
def test_who_is_worse(ours: Check, theirs: Check, is_worse: bool) -> None:
    runtimes = {OURS: [ours], "other": [theirs]}
    found = worse(runtimes)
    assert found == ([{"area": "area", "name": "one", "seen": ours.seen, "peers": ["other"]}] if is_worse else [])
    shown = "\n".join(compared({"runtimes": runtimes, "worse": found}))
    assert ("worse than other: area one" in shown) == is_worse
    assert ("no control holds" in shown) != is_worse


def test_the_table_has_a_row_for_each_area_and_their_sum() -> None:
    checks = [OPEN, Check("area", "two", "pass", ""), Check("other area", "one", "skip", "")]
    rows = list(compared({"runtimes": {OURS: checks}, "worse": []}))
    assert rows[0].split() == ["area", OURS]
    assert [row.split()[-1] for row in rows[1:4]] == ["1/1/0", "0/0/1", "1/1/1"]

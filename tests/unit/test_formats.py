"""--format, --filter, --since: what is taken, what it shows, and how all else is refused in one line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import filters
from minicontainer.cli.formats import Row, Template, list_text, rows_text
from minicontainer.cli.times import format_time, parse_time, rfc3339
from minicontainer.errors import SpecError

DATA = {
    "ID": "0123",
    "State": {"Status": "running", "Pid": None, "Paused": False},
    "Args": ["-c", "true"],
    "Labels": {"b": "2", "a.x": "1"},
    "Mounts": [{"Type": "bind"}],
}
ROW = Row(DATA, {"Labels": "a.x=1,b=2"})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "0123"),
        ("{{ .ID }}: {{.State.Status}}", "0123: running"),
        ("{{.State.Pid}}", "<no value>"),
        ("{{.State.Paused}}", "false"),
        ("{{.Args}}", "[-c true]"),
        ("{{.Labels}}", "a.x=1,b=2"),
        ("{{json .Labels}}", json.dumps(DATA["Labels"])),
        ("{{json .State.Pid}}", "null"),
        ("{{json .}}", json.dumps(DATA)),
        ('{{index .Labels "a.x"}}', "1"),
        ('{{index .Labels "none"}}', ""),
        ("{{index .Args 1}}", "true"),
        (r"{{.ID}}\t{{.ID}}\n", "0123\t0123\n"),
        ("a {{- .ID -}} b", "a0123b"),
        ("{{.State}}", "map[Paused:false Pid:<no value> Status:running]"),
        ("{{.Mounts}}", "[map[Type:bind]]"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert Template(template).render(ROW) == text


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{range .Args}}x{{end}}", "'{{range .Args}}': is not supported"),
        ("{{.ID | upper}}", "is not supported"),
        ("{{len .Args}}", "{{json .Field}}"),
        ("{{.ID", "without"),
        ("no fields", "is neither json, nor table, nor a template"),
        ("{{.Nope}}", "{{.Nope}}: there is no Nope (there are ID, State"),
        ("{{.State.Nope}}", "there is no Nope (there are Status, Pid, Paused)"),
        ("{{.ID.x}}", "there is no x"),
        ("{{index .Args 7}}", "there is no such item"),
    ],
)
def test_what_is_not_taken(template: str, says: str) -> None:
    with pytest.raises(SpecError) as refused:
        Template(template).render(ROW)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text())
def test_no_template_raises_anything_else(text: str) -> None:
    said = ""
    try:
        Template(f"{{{{{text}}}}}{text}").render(ROW)
    except SpecError as e:
        said = str(e)
    assert "\n" not in said


def test_rows() -> None:
    rows = [ROW, Row({**DATA, "ID": "45"})]
    assert rows_text(rows, "table", {}, lambda: "as it is") == "as it is\n"
    assert [json.loads(line)["ID"] for line in rows_text(rows, "json", {}, str).splitlines()] == ["0123", "45"]
    assert rows_text(rows, "{{.ID}}", {}, str) == "0123\n45\n"
    told = rows_text(rows, r"table {{.ID}}\t{{.State.Status}}", {"ID": "THE ID"}, str)
    assert told == "THE ID   STATUS\n0123     running\n45       running\n"
    assert rows_text([], r"table {{.ID}}\t{{.CreatedAt}}", {}, str) == "ID   CREATED AT\n"


def test_a_list_is_one_document() -> None:
    assert json.loads(list_text([DATA, DATA], "json")) == [DATA, DATA]
    assert json.loads(list_text([], "json")) == []
    assert list_text([DATA], "{{.State.Status}}") == "running\n"


# ---- times


@pytest.fixture(autouse=True)
def three_hours_east() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "XXX-3"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1700000000),
        ("1700000000.123456789", Fraction(1700000000123456789, 10**9)),
        ("2023-11-14T22:13:20Z", 1700000000),
        ("2023-11-14T22:13:20.000000001Z", Fraction(1700000000 * 10**9 + 1, 10**9)),
        ("2023-11-14t23:13:20+01:00", 1700000000),
        ("2023-11-15T01:13:20", 1700000000),
        ("2023-11-14T22:13Z", 1699999980),
        ("2023-11-15", 1699995600),
        ("2023-11-15Z", 1700006400),
    ],
)
def test_times(text: str, seconds: int | Fraction) -> None:
    assert parse_time("since", text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("90m", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        ("1h30m10.5s", Fraction(54105, 10)),
        ("100ms", Fraction(1, 10)),
        ("1m500us", 60 + Fraction(1, 2000)),
        ("-1h", -3600),
        ("+1h", 3600),
        (".5s", Fraction(1, 2)),
    ],
)
def test_spans_lie_back(text: str, seconds: int | Fraction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1700000000 * 10**9)
    assert parse_time("since", text) == 1700000000 - seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1h30", "h", "1x", "2023-13-01", "2023-11-14T25:00Z", "1h 30m", "٣m", "9" * 20]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(SpecError, match="is no time"):
        parse_time("since", text)


def test_what_is_shown() -> None:
    assert rfc3339(1700000000123456789) == "2023-11-14T22:13:20.123456789Z"
    assert format_time(None) is None
    assert format_time(1.5) == "1970-01-01T00:00:01.500000000Z"
    assert parse_time("since", rfc3339(1700000000123456789)) == Fraction(1700000000123456789, 10**9)


# ---- filters

KNOWN = {
    "name": filters.matches("name", lambda item: item["name"]),
    "kind": filters.one_of("kind", ("a", "b"), lambda item: item["kind"]),
    "code": filters.number("code", lambda item: item["code"]),
    "label": filters.label(lambda item: item["labels"]),
}
ITEM = {"name": "web-1", "kind": "a", "code": 4, "labels": {"x": "1", "y": ""}}


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ([], True),
        (["name=^web"], True),
        (["name=^web$"], False),
        (["name=^web$", "name=1$"], True),
        (["name=web", "kind=b"], False),
        (["kind=b", "kind=a"], True),
        (["code=4"], True),
        (["code=5"], False),
        (["label=x", "label=y"], True),
        (["label=x", "label=z"], False),
        (["label=x=1"], True),
        (["label=x=2"], False),
    ],
)
def test_filters(given: list[str], fits: bool) -> None:
    assert filters.Filters(given, KNOWN).fit(ITEM) is fits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour=red", "must be KEY=VALUE, of name, kind, code, label"),
        ("name", "must be KEY=VALUE"),
        ("kind=c", "filter kind=c: must be one of a, b"),
        ("code=x", "filter code=x: must be a number"),
        ("name=(", "is no regular expression"),
    ],
)
def test_filters_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(SpecError) as refused:
        filters.Filters([text], KNOWN)
    assert says in str(refused.value)

"""Single values of a spec: sizes, numbers, identifiers, lists; what is taken, and what is refused in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import TEXTS, or_refused, refused

from minicontainer import spec as s
from minicontainer.errors import quote, sentence

# ---- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1024", 1024), ("64m", 64 << 20), ("64M", 64 << 20), ("64MiB", 64 << 20), ("64mb", 64 << 20),
     ("1.5g", 3 << 29), (" 2k ", 2048), ("3 t", 3 << 40), ("7b", 7), ("0.5k", 512), (5, 5)],
)  # fmt: skip
def test_size(text: str | int, size: int) -> None:
    assert s.size("memory", text) == size


@pytest.mark.parametrize(
    "text",
    ["", "m", "12Q", "-1", "1e3", "0x10", "1,5", "1..5", ".5k", "nan", "inf", "1" * 30, "٣", "1_000", "5 5", "64mm",
     "9223372036854775808", "8388608t", 0, -1, True, 1.5, None, b"5"],
)  # fmt: skip
def test_no_size(text: Any) -> None:
    refused(lambda: s.size("memory", text), "memory")


@given(st.integers(1, 2**63 - 1))
def test_size_of_bytes(number: int) -> None:
    assert s.size("x", number) == s.size("x", str(number)) == s.size("x", f"{number}B") == number


@given(st.integers(1, 2**20), st.sampled_from("kmgt"))
def test_size_of_units(number: int, unit: str) -> None:
    assert s.size("x", f"{number}{unit}") == number * 1024 ** ("kmgt".index(unit) + 1)


@given(TEXTS)
def test_size_of_anything(text: str) -> None:
    """A size in bounds, or one line; never another exception."""
    with or_refused():
        assert 1 <= s.size("memory", text) < 2**63


# ---- numbers


@given(st.integers(), st.integers(-5, 5), st.integers(6, 2000))
def test_whole(number: int, least: int, most: int) -> None:
    for value in (number, str(number)):
        if least <= number <= most:
            assert s.whole("x", value, least, most) == number
        else:
            refused(s.whole, str(least), str(most), arguments=("x", value, least, most))


@given(TEXTS | st.floats() | st.none() | st.booleans() | st.binary())
def test_whole_of_anything(value: Any) -> None:
    with or_refused():
        assert s.whole("x", value, 0, 100) in range(101)
        assert isinstance(value, (int, str))
        assert not isinstance(value, bool)


@pytest.mark.parametrize(
    ("text", "number"), [("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("007", 7.0), (3, 3.0), (0.25, 0.25)]
)
def test_decimal(text: Any, number: float) -> None:
    assert s.decimal("cpus", text, 0.01, 100, "CPUs") == number


@pytest.mark.parametrize(
    "text", ["", ".", "nan", "inf", "-1", "1e1", "1_0", "0x1", " 1", "101", float("nan"), True, None, 10**400]
)
def test_no_decimal(text: Any) -> None:
    refused(lambda: s.decimal("cpus", text, 0.01, 100, "CPUs"), "cpus", "from 0.01 to 100")


# ---- texts


@given(TEXTS)
def test_text(value: str) -> None:
    """What the kernel can be given: no NUL, nothing that has no bytes, not empty."""
    with or_refused():
        assert s.text("x", value) == value
        assert value.encode("utf-8", "surrogateescape")
        assert "\0" not in value


@given(st.binary(max_size=40))
def test_bytes_of_the_command_line_are_kept(value: bytes) -> None:
    """What Python makes of any argument of a program (PEP 383) is a text again."""
    text = value.decode("utf-8", "surrogateescape")
    if value and b"\0" not in value:
        assert s.text("x", text).encode("utf-8", "surrogateescape") == value


@given(TEXTS, TEXTS)
def test_a_sentence_is_one_printable_line(what: str, value: str) -> None:
    line = sentence("what", value, "is wrong")
    assert line.isprintable()
    assert quote(what).isprintable()
    assert len(quote("x" * 100_000)) < 300


# ---- lists of CPUs, signals, capabilities, ids


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted), min_size=1, max_size=5))
def test_cpu_list(ranges: list[list[int]]) -> None:
    text = ",".join(f"{first}-{last}" if first != last else str(first) for first, last in ranges)
    assert s.cpu_list("cpuset-cpus", text) == text


@pytest.mark.parametrize("text", ["", ",", "1,", "-1", "1-", "3-1", "a", "1 2", "1--2", "0-1-2", "٣", "1\n"])
def test_no_cpu_list(text: str) -> None:
    refused(lambda: s.cpu_list("cpuset-cpus", text), "cpuset-cpus")


@pytest.mark.parametrize(
    ("name", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigint", 2), ("9", 9), ("USR1", 10), ("RTMIN", 34), ("RTMIN+3", 37), ("64", 64)],
)
def test_signal(name: str, number: int) -> None:
    assert s.signal_number("stop-signal", name) == number


@pytest.mark.parametrize(
    "name", ["", "SIG", "NONE", "0", "65", "-1", "RTMIN+99", "TERM+1", "15.0", "²", "__class__", "RTMIN+"]
)
def test_no_signal(name: str) -> None:
    refused(lambda: s.signal_number("stop-signal", name), "stop-signal")


@given(TEXTS)
def test_signal_of_anything(name: str) -> None:
    with or_refused():
        assert 1 <= s.signal_number("stop-signal", name) <= 64


def test_capability() -> None:
    for name in s.CAPABILITIES:
        assert s.capability("cap-add", name.lower()) == s.capability("cap-add", f"CAP_{name}") == name
    assert s.capability("cap-drop", "all") == "ALL"
    for wrong in ("", "FLY", "CAP_", "CAP_CAP_CHOWN", "CHOWN ", "0"):
        refused(s.capability, "cap-add", arguments=("cap-add", wrong))


@given(TEXTS)
def test_user_of_anything(text: str) -> None:
    """Whatever passes has a name or number on a side of at most one colon, and no number out of range."""
    with or_refused():
        s.check_user("user", text)
        parts = text.split(":")
        assert len(parts) <= 2
        assert any(parts)
        for part in parts:
            assert not re.fullmatch(r"[0-9]+", part) or int(part) < 2**32 - 1


@pytest.mark.parametrize(
    "user", ["4294967295", "-1", "1:4294967295", ":", "1:2:3", "::", ":1:", "", "a\0b", "99999999999999999999999"]
)
def test_no_user(user: str) -> None:
    refused(lambda: s.check_user("user", user), "user")


# ---- environment


@given(
    st.dictionaries(st.text("AB_c1é.", min_size=1, max_size=5), st.text(max_size=10).filter(lambda v: "\0" not in v))
)
def test_environment(env: dict[str, str]) -> None:
    with or_refused():
        assert s.parse_env([f"{key}={value}" for key, value in env.items()]) == env


def test_environment_of_the_caller() -> None:
    caller = {"A": "1", "B": "2=3"}
    assert s.parse_env(["A", "B", "A=x", "D="], caller) == {"A": "x", "B": "2=3", "D": ""}
    refused(lambda: s.parse_env(["C"], caller), "env C", "is not set here")
    for wrong in ("", "=", "=x", "A=\0", "\0=1"):
        refused(s.parse_env, "env", arguments=([wrong], caller))
    for name in ("A B", "A\t", " A", "A\n", "A\u2003B", " "):
        refused(s.parse_env, "env", "a name with a blank in it", arguments=([f"{name}=1"], caller))
        refused(s.parse_env, "env", "a name with a blank in it", arguments=([name], {name: "x"}))

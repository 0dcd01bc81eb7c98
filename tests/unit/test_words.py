"""The checks of words that are written by hand accept what these regular expressions do, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import SpecError
from minicontainer.spec import Spec, Ulimit, parts
from minicontainer.spec.values import NAME_PATTERN, cpu_list, decimal, is_integer, is_name, is_range, size


def taken(check: Callable[[str], object], error: type[Exception] = SpecError) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        try:
            check(text)
        except error:
            return False
        return True

    return accepts


def hostname(text: str) -> object:
    return Spec(rootfs="/x", hostname=text)


NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
CHECKS: dict[str, tuple[Callable[[str], bool], str]] = {
    "name": (is_name, NAME_PATTERN),
    "range": (is_range, r"[0-9]{1,10}:[0-9]{1,10}:[1-9][0-9]{0,9}"),
    "integer": (is_integer, r"[+-]?[0-9]{1,20}"),
    "decimal": (
        taken(lambda text: decimal("x", text, 0, 1e40, "CPUs")),
        r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}",
    ),
    "hostname": (taken(hostname), r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"),
    "cpu list": (
        taken(lambda text: cpu_list("x", text)),
        r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*",
    ),
    "sysctl": (
        taken(lambda text: Spec(rootfs="/x", sysctls={"net." + text: "1"})),
        r"[a-zA-Z0-9_-]+([./][a-zA-Z0-9_-]+)*",
    ),
    "namespace": (
        taken(lambda text: Spec(rootfs="/x", pid=text)),
        r"private|host|ns:/[^\n\0]+|pid:[1-9][0-9]{0,9}",
    ),
    "share": (parts._is_share, "([1-9][0-9]?|100)%"),
    "mode": (parts._is_mode, "[0-7]{1,4}"),
    "limit": (taken(lambda text: Ulimit.option(f"nofile={text}")), "(-1|unlimited|[0-9]{1,19})"),
}
LETTERS = st.text(st.sampled_from("0123456789aZ._-+:,/% \n\u0663\u017f\u212a\xb2"), max_size=24)


def texts(pattern: str) -> st.SearchStrategy[str]:
    """Texts that match, and such with one more character at any place."""
    matching = st.from_regex(pattern, fullmatch=True)
    edited = st.builds(
        lambda text, at, letter: text[: at % (len(text) + 1)] + letter + text[at % (len(text) + 1) :],
        matching,
        st.integers(0, 80),
        LETTERS,
    )
    return st.one_of(matching, edited, LETTERS)


@pytest.mark.parametrize("name", CHECKS)
@given(data=st.data())
def test_a_check_accepts_what_its_expression_does(name: str, data: st.DataObject) -> None:
    check, pattern = CHECKS[name]
    text = data.draw(texts(pattern))
    expected = bool(re.fullmatch(pattern, text))
    if name == "cpu list":
        ranges = [part.split("-") for part in text.split(",")] if expected else []
        expected = expected and all(int(r[0]) <= int(r[-1]) for r in ranges)
    if name == "limit" and expected and text.isdigit():
        expected = int(text) < 2**63
    assert check(text) == expected, text


@given(texts(rf"{NUMBER}\s*[bkmgtBKMGT]?(i?[bB])?"))
def test_sizes_are_those_of_their_expression(text: str) -> None:
    match = re.fullmatch(rf"({NUMBER})\s*([bkmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    units = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
    expected = None
    if match and text.strip()[match.end(1) :].strip().isascii():
        number = float(match[1]) if "." in match[1] else int(match[1])
        expected = int(number * units[match[2].lower()])
    if expected is None or not 0 <= expected < 2**63:
        with pytest.raises(SpecError):
            size("x", text, least=0)
    else:
        assert size("x", text, least=0) == expected

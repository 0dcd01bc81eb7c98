"""``--filter KEY=VALUE``, as in docker: values of one key are alternatives; of ``label``, all must match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minicontainer.errors import SpecError

Test = Callable[[Any], bool]
ALL = ("label",)  # keys whose filters must all match


class Filters:
    """The filters of a command line. SpecError for an unknown key or an invalid value."""

    def __init__(self, texts: Iterable[str], known: Mapping[str, Callable[[str], Test]]) -> None:
        """``known``: by key, a function that makes a test from a value."""
        self._tests: dict[str, list[Test]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or key not in known:
                raise SpecError("filter", text, f"must be KEY=VALUE, of {', '.join(known)}")
            self._tests.setdefault(key, []).append(known[key](value))

    def __contains__(self, key: str) -> bool:
        return key in self._tests

    def fit(self, item: Any) -> bool:
        """Whether ``item`` matches every filter."""
        return all((all if key in ALL else any)(test(item) for test in tests) for key, tests in self._tests.items())


def matches(key: str, of: Callable[[Any], str]) -> Callable[[str], Test]:
    """Match a text by a regular expression."""

    def make(value: str) -> Test:
        try:
            pattern = re.compile(value)
        except (re.error, RecursionError, OverflowError) as e:
            raise SpecError("filter", f"{key}={value}", f"is no regular expression: {e}") from None
        return lambda item: pattern.search(of(item)) is not None

    return make


def one_of(key: str, choices: Iterable[str], of: Callable[[Any], str]) -> Callable[[str], Test]:
    """Match one of ``choices``."""
    known = tuple(choices)

    def make(value: str) -> Test:
        if value not in known:
            raise SpecError("filter", f"{key}={value}", f"must be one of {', '.join(known)}")
        return lambda item: of(item) == value

    return make


def number(key: str, of: Callable[[Any], int | None]) -> Callable[[str], Test]:
    """Match a number."""

    def make(value: str) -> Test:
        if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
            raise SpecError("filter", f"{key}={value}", "must be a number")
        return lambda item: of(item) == int(value)

    return make


def equal(of: Callable[[Any], Iterable[str]]) -> Callable[[str], Test]:
    """Match one text of several."""
    return lambda value: lambda item: value in of(item)


def label(of: Callable[[Any], Mapping[str, str]]) -> Callable[[str], Test]:
    """Match a label, ``NAME`` or ``NAME=VALUE``."""

    def make(value: str) -> Test:
        name, equals, wanted = value.partition("=")
        return lambda item: name in of(item) and (not equals or of(item)[name] == wanted)

    return make

"""Checks of refused specs: a SpecError with one printable line, never another exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import strategies as st

from minicontainer.errors import SpecError

TEXTS = st.text(st.characters(codec=None), max_size=60)  # with control characters, separators and lone surrogates


def refused(act: Callable[..., Any], *says: str, arguments: tuple[Any, ...] = ()) -> None:
    """``act(*arguments)`` raises a SpecError, whose line contains every word."""
    with pytest.raises(SpecError) as caught:
        act(*arguments)
    line = str(caught.value)
    assert line.isprintable()
    for word in says:
        assert word in line


@contextmanager
def or_refused() -> Iterator[None]:
    """The block may raise a SpecError with one printable line."""
    try:
        yield
    except SpecError as e:
        if not str(e).isprintable():
            raise AssertionError(f"not one line: {e}") from e

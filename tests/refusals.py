"""Refusals of a spec, for tests: a SpecError of one printable line, and never another exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import strategies as st

from minicontainer.errors import SpecError

TEXTS = st.text(st.characters(codec=None), max_size=60)  # with controls, separators and halves of characters


def refused(act: Callable[..., Any], *says: str, given: tuple[Any, ...] = ()) -> None:
    """``act(*given)`` is a SpecError, whose one line holds every word."""
    with pytest.raises(SpecError) as caught:
        act(*given)
    line = str(caught.value)
    assert line.isprintable()
    for word in says:
        assert word in line


@contextmanager
def or_refused() -> Iterator[None]:
    """What is done in it may be refused."""
    try:
        yield
    except SpecError as e:
        if not str(e).isprintable():
            raise AssertionError(f"not one line: {e}") from e

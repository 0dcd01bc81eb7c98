"""Converts a caller's values to one type. Another type is a ``SpecError`` that names the field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minicontainer.errors import SpecError


def flag(name: str, value: object) -> None:
    """SpecError where the value is neither True nor False."""
    if not isinstance(value, bool):
        raise SpecError(name, value, f"must be True or False, not {type(value).__name__}")


def sequence(what: str, value: object) -> tuple[Any, ...]:
    """Converts a list or another iterable to a tuple. A single string is refused: its characters are not the items."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise SpecError(what, value, f"must be a sequence, as a list, not {type(value).__name__}")
    return tuple(value)


def mapping(what: str, value: object, parse: Callable[[Any], dict[str, str]]) -> dict[str, Any]:
    """Converts a mapping to a dict; or strings of the command line, by ``parse``."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise SpecError(what, value, f"must be a mapping, or a list of strings, not {type(value).__name__}")
    return parse(tuple(value))

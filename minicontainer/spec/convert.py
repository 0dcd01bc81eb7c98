"""Converts a caller's values to one type. Another type is a ``SpecError`` that names the field."""

from __future__ import annotations

from _collections_abc import Iterable, Mapping  # collections.abc imports collections

from minicontainer.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


class ReadOnly(dict):  # type: ignore[type-arg]
    """A mapping of a spec: a dict that refuses changes, since the specs of a family share it, and what is compiled of
    it. It is equal to a dict, shown, copied and pickled as one; ``dict(mapping)`` and ``mapping.copy()`` may be
    changed."""

    __slots__ = ()

    def _refuse(self, *args: object, **keywords: object) -> NoReturn:
        raise TypeError("a mapping of a spec is read-only (make another spec, as by replace(spec, env={...}))")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[ReadOnly], tuple[dict[Any, Any]]]:
        """For copy and pickle, which would add the items one by one."""
        return ReadOnly, (dict(self),)


NOTHING = ReadOnly()


def flag(name: str, value: object) -> None:
    """SpecError where the value is neither True nor False."""
    if not isinstance(value, bool):
        raise SpecError(name, value, f"must be True or False, not {type(value).__name__}")


def sequence(what: str, value: object) -> tuple[Any, ...]:
    """Converts a list or another iterable to a tuple. A single string is refused: its characters are not the items."""
    if type(value) is list or type(value) is tuple:
        return tuple(value)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise SpecError(what, value, f"must be a sequence, as a list, not {type(value).__name__}")
    return tuple(value)


def mapping(what: str, value: object, parse: Callable[[Any], dict[str, str]]) -> ReadOnly:
    """Converts a mapping to one that is read-only; or strings of the command line, by ``parse``."""
    if type(value) is ReadOnly:
        return value
    if type(value) is dict or isinstance(value, Mapping):
        return ReadOnly(value) if value else NOTHING
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise SpecError(what, value, f"must be a mapping, or a list of strings, not {type(value).__name__}")
    return ReadOnly(parse(tuple(value)))

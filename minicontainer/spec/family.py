"""Families of specs: those that differ in the fields CHANGING alone.

Theory of operation. Ten thousand commands in one root file system are one family. All other fields are checked for the
first of them, and a start compiles them once for all (``Family.compiled``). Families are found by the values that the
caller gave, before these are checked; a value that may change, or that cannot be compared, makes a family of its own.
"""

from __future__ import annotations

import os

from minicontainer.spec.convert import ReadOnly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CHANGING = ("args", "env", "cwd", "hostname", "name", "limits")
PATHS = ("mounts", "devices", "seccomp", "executable", "kernel")  # may be relative to the caller's directory
MOST = 64  # families that are found again

_families: dict[object, Family] = {}  # (a dict's methods are atomic)


class Family:
    """What the specs of one family share.

    fields    the checked values of all fields but CHANGING
    compiled  for each executable that starts them (container.facts.gather): container.compilation.Compiled of the spec
              that was compiled last"""

    __slots__ = ("compiled", "fields")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = {name: value for name, value in fields.items() if name not in CHANGING}
        self.compiled: dict[str, Any] = {}


def key_of(values: Mapping[str, Any], defaults: Mapping[str, object]) -> object:
    """The key of the family, from the values of all fields as the caller gave them; None where it has none."""
    try:
        key = [
            _part(name, value)
            for name, value in values.items()
            if value is not defaults[name] and name not in CHANGING and name != "rootfs"
        ]
        for part in key:
            if part[0] in PATHS:
                key.append(("", str, os.getcwd()))
                break
        rootfs = values["rootfs"]
        if type(rootfs) is not str or rootfs[:1] != "/" or "\0" in rootfs:
            rootfs = _absolute(rootfs)
        made = (rootfs, *key)
        hash(made)
    except (TypeError, OSError):
        return None
    return made


def _absolute(rootfs: Any) -> str:
    """The absolute path of ROOTFS; TypeError where it is no path."""
    path = os.fspath(rootfs)
    if not isinstance(path, str) or "\0" in path or not path:
        raise TypeError
    return os.path.abspath(path)


def _part(name: str, value: Any) -> tuple[str, type, object]:
    """Name, type and value: 1, 1.0 and True are equal, but other values of a field."""
    kind = type(value)
    if kind is dict or kind is ReadOnly:
        kind, value = dict, tuple(value.items())
    elif kind is list or kind is tuple:
        value = tuple(value)
        if any(type(item) is not str and not hasattr(item, "__match_args__") for item in value):
            raise TypeError
    return name, kind, value


def find(key: object) -> Family | None:
    """The family of a key, where a spec of it was made before."""
    return _families.get(key) if key is not None else None


def add(key: object, family: Family) -> None:
    """Makes a family known by its key; the oldest ones are forgotten."""
    if key is None:
        return
    for old in list(_families)[: max(0, len(_families) - MOST + 1)]:
        _families.pop(old, None)
    _families[key] = family

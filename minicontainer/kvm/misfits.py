"""Why values do not fit into a structure of the kernel: the call, the field, the value, and what is allowed."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def kind_of(value: Any) -> str:
    """The type of a value, as in C if it is a cdata."""
    if not isinstance(value, ffi.CData):
        return type(value).__name__
    return str(ffi.typeof(value).cname) if value else "NULL"


def refuse_number(what: str, value: object, least: int, most: int) -> None:
    """TypeError: the value is no whole number; SpecError: it is too small or too large."""
    if not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be a whole number, not {kind_of(value)}")
    if not least <= int(value) <= most:
        raise SpecError(what, value, f"must be a whole number from {least} to {most}")


def refuse_values(what: str, kind: Any, value: Any) -> None:
    """The first of the values of a ``kind`` (ffi.typeof) that does not fit, as TypeError or SpecError."""
    if kind.kind in ("struct", "union"):
        fields = dict(kind.fields)
        for name, item in value.items() if isinstance(value, dict) else zip(fields, value, strict=False):
            refuse_values(f"{what} {name}", fields[name].type, item)
    elif kind.kind == "array" and isinstance(value, (list, tuple)):
        if kind.length is not None and len(value) > kind.length:
            raise SpecError(what, f"{len(value)} values", f"there is room for {kind.length}")
        for index, item in enumerate(value):
            refuse_values(f"{what}[{index}]", kind.item, item)
    elif kind.kind == "primitive":
        bits, signed = 8 * ffi.sizeof(kind), int(ffi.cast(kind, -1)) < 0
        refuse_number(what, value, -1 << bits - 1 if signed else 0, (1 << bits - signed) - 1)

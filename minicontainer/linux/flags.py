"""Kernel constants by name."""

from __future__ import annotations

from minicontainer.native import lib


def flags(value: int | str) -> int:
    """``lib.X`` or-ed of ``"X|Y"``; an int as it is. ValueError for a name that is none."""
    if isinstance(value, int):
        return value
    number = 0
    for name in value.split("|"):
        if name.strip().isdigit():
            number |= int(name)
        elif hasattr(lib, name):
            number |= getattr(lib, name)
        else:
            raise ValueError(f"{name!r} is no constant of the kernel that is known here")
    return number

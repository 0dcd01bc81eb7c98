"""Arguments of the primitives: flags as numbers or names, and paths."""

from __future__ import annotations

import os

from minicontainer.plan.step import const

StrPath = str | os.PathLike[str]


def flags(value: int | str) -> int:
    """The number of flags: an int unchanged, or names (``"MS_NOSUID|MS_NODEV"``), which errors then show.
    ValueError for an unknown name."""
    return value if isinstance(value, int) else const(value.replace(" ", ""))


def path(name: StrPath) -> bytes:
    """A path as bytes. ValueError for a NUL byte, at which the kernel would cut it."""
    data = os.fsencode(name)
    if b"\0" in data:
        raise ValueError(f"{os.fspath(name)!r} holds a NUL byte")
    return data

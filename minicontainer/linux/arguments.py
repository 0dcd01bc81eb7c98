"""What the primitives take: flags as numbers or by name, and paths."""

from __future__ import annotations

import os

from minicontainer.plan.step import const

StrPath = str | os.PathLike[str]


def flags(value: int | str) -> int:
    """An int as it is; of ``"MS_NOSUID|MS_NODEV"`` the kernel's number, which an error then shows by name.
    ValueError for a name that is not known."""
    return value if isinstance(value, int) else const(value.replace(" ", ""))


def path(name: StrPath) -> bytes:
    """A path for the kernel. ValueError for a NUL byte, at which the kernel's would end."""
    data = os.fsencode(name)
    if b"\0" in data:
        raise ValueError(f"{os.fspath(name)!r} holds a NUL byte")
    return data

"""A step of a plan: one primitive, and what its arguments can be, each of which knows how it is printed.

Pure: nothing here makes a system call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from minicontainer.errors import SpecError
from minicontainer.native import lib


def known(name: str) -> int:
    """The kernel's number for a name, as the compiler knows it."""
    try:
        return int(getattr(lib, name))
    except AttributeError:
        raise SpecError("constant", name, "is not among those of this package", "csrc/constants.h lists them") from None


class Const(int):
    """Kernel constants by name, or-ed: the value is the compiler's, the text is what is printed."""

    text: str

    def __new__(cls, text: str) -> Const:
        if not isinstance(text, str):
            raise TypeError(f"constants must be a string of names, not {type(text).__name__}")
        value = 0
        for name in text.split("|"):
            value |= int(name, 0) if name[:1].isdigit() else known(name)
        self = super().__new__(cls, value)
        self.text = text
        return self

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)


@lru_cache(maxsize=512)
def const(text: str) -> Const:
    """``Const(text)``, made once."""
    return Const(text)


class Slot(str):
    """A descriptor of a run, by name."""

    __slots__ = ()


class Octal(int):
    """A mode: printed in octal."""

    def __str__(self) -> str:
        return f"{int(self):#o}"


class Hex(int):
    """A mask: printed in hexadecimal."""

    def __str__(self) -> str:
        return f"{int(self):#x}"


class Struct(bytes):
    """A structure passed by address, with the text that is printed for it."""

    text: str

    def __new__(cls, data: bytes, text: str) -> Struct:
        self = super().__new__(cls, data)
        self.text = text
        return self

    def __getnewargs__(self) -> tuple[bytes, str]:  # type: ignore[override]
        return bytes(self), self.text


class Step(NamedTuple):
    """One primitive.

    into      slot that takes the resulting descriptor
    tolerate  errno values (two at most) that are no failure; then the next ``skip`` steps are left out
    phase     what it is for; ``--explain`` sums by it
    """

    call: str
    args: tuple[object, ...] = ()
    op: int = 0
    nr: int = 0
    into: Slot | None = None
    tolerate: tuple[int, ...] = ()
    skip: int = 0
    phase: str = ""

    def describe(self) -> str:
        """The call as a man page would write it."""
        into = f"{self.into} = " if self.into else ""
        return f"{into}{self.call}({', '.join(map(show, self.args))})"


def texts(what: str, given: object) -> tuple[str, ...]:
    """A list of strings. TypeError where it is none: of one string its letters are not meant."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a list of strings, not {type(given).__name__}")
    found = tuple(given)
    for item in found:
        if not isinstance(item, str):
            raise TypeError(f"{what} must be a list of strings, not of {type(item).__name__}")
    return found


def show(arg: object) -> str:
    """One argument in words."""
    if arg is None:
        return "NULL"
    if isinstance(arg, (Const, Struct)):
        return arg.text
    if isinstance(arg, Slot):
        return f"<{arg}>"
    if isinstance(arg, str):
        return '"' + arg.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    if isinstance(arg, bytes):
        return show(arg.decode("latin-1")) if len(arg) <= 64 else f"<{len(arg)} bytes>"
    if isinstance(arg, (list, tuple)):
        shown = ", ".join(show(a) for a in arg[:8])
        return f"[{shown}{f', ... {len(arg) - 8} more' if len(arg) > 8 else ''}]"
    return format(arg)  # not str: before Python 3.11 that of a signal is its name


def os_bytes(value: str) -> bytes:
    """A string as the kernel is given it (the file system encoding, as os.fsencode)."""
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise SpecError("argument", value, "holds half a character") from None
    if b"\0" in data:
        raise SpecError("argument", value, "holds a NUL byte")
    return data

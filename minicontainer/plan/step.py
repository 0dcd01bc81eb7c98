"""A step of a plan: one primitive, and what its arguments can be, each of which knows how it is printed.

Pure: nothing here makes a system call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from types import FunctionType
from typing import Any, NamedTuple

from minicontainer.errors import SpecError
from minicontainer.native import lib


def known(name: str) -> int:
    """The kernel's number for a name, as the compiler knows it."""
    try:
        return int(getattr(lib, name))
    except AttributeError:
        raise SpecError(
            "constant", name, "is not among those of this package", "csrc/plan/constants.h lists them"
        ) from None


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


# ---- what a step function is given

KINDS: dict[str, type[Any]] = {
    "str": str, "bytes": bytes, "int": int, "bool": bool, "object": object, "None": type(None), "Slot": Slot,
    "Const": Const, "Step": Step,
}  # fmt: skip


@lru_cache(maxsize=64)
def _taker(annotation: str) -> Callable[[object], bool]:
    """Whether a value is what a step function's annotation says: types of KINDS, ``Sequence[X]``, a pair of ints."""
    if annotation == "Sequence[str]":
        return lambda value: True  # ``texts`` tells more of it
    if annotation.startswith("Sequence["):
        item = _taker(annotation[len("Sequence[") : -1])
        return lambda value: (
            isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and all(map(item, value))
        )
    if annotation == "tuple[int, int] | None":
        return lambda value: value is None or (isinstance(value, tuple) and list(map(_is_int, value)) == [True, True])
    kinds = tuple(KINDS[word] for word in annotation.split(" | "))
    return lambda value: isinstance(value, kinds)


def _is_int(value: object) -> bool:
    return isinstance(value, int)


def _kind(value: object) -> str:
    items = {type(item).__name__ for item in value} if isinstance(value, (list, tuple)) else ()
    return type(value).__name__ + (f" of {', '.join(sorted(items))}" if items else "")


def _with_checks(make: FunctionType) -> Callable[..., Step]:
    code, said = make.__code__, make.__annotations__
    takers = {name: _taker(said[name]) for name in said if name != "return"}
    more = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :][: bool(code.co_flags & 4)]  # CO_VARARGS
    rest = [name for name in more if said[name] != "object"] * lib.MC_ARGS
    names = [*code.co_varnames[: code.co_argcount], *rest]
    by_place = [(name, takers[name]) for name in names]

    def mistake(name: str, value: object) -> TypeError:
        return TypeError(f"{make.__name__}: {name} must be {said[name]}, not {_kind(value)}")

    @wraps(make)
    def checking(*args: Any, **words: Any) -> Step:
        for (name, takes), value in zip(by_place, args, strict=False):
            if not takes(value):
                raise mistake(name, value)
        for name, value in words.items():
            if name in takers and not takers[name](value):
                raise mistake(name, value)
        try:
            step: Step = make(*args, **words)
        except struct.error as e:
            reason = f"a number is out of range: {e}"
            raise SpecError("step", f"{make.__name__}({', '.join(map(show, args))})", reason) from None
        return step

    return checking


def checked(module: dict[str, Any]) -> None:
    """Of a module, every function that makes a Step: an argument of a type that its annotation does not have is a
    TypeError which names the step and the argument, when the step is made."""
    for name, made in list(module.items()):
        if isinstance(made, FunctionType) and made.__annotations__.get("return") == "Step":
            module[name] = _with_checks(made)


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

"""A step of a plan: one primitive with its arguments. Each type of argument defines how it is printed.

Pure: no function here makes a system call.
"""

from __future__ import annotations

from _collections_abc import Iterable, Mapping, Sequence  # collections.abc imports collections

from minicontainer.errors import SpecError
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import struct
    from collections.abc import Callable
    from functools import lru_cache
    from types import FunctionType
    from typing import Any, NamedTuple
else:
    import _struct as struct  # struct is a module of Python that imports it

    from minicontainer.light import lru_cache
    from minicontainer.records import NamedTuple

    FunctionType = type(lambda: None)


def constant_value(name: str) -> int:
    """The value of a kernel constant. SpecError: it is not in csrc/plan/constants.h."""
    try:
        return int(getattr(lib, name))
    except AttributeError:
        raise SpecError(
            "constant", name, "is not among those of this package", "csrc/plan/constants.h lists them"
        ) from None


class Const(int):
    """Kernel constants by name, joined by ``|``: the C compiler gives the value, ``text`` is printed."""

    text: str

    def __new__(cls, text: str) -> Const:
        if not isinstance(text, str):
            raise TypeError(f"constants must be a string of names, not {type(text).__name__}")
        value = 0
        for name in text.split("|"):
            value |= int(name, 0) if name[:1].isdigit() else constant_value(name)
        self = super().__new__(cls, value)
        self.text = text
        return self

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)


@lru_cache(maxsize=512)
def const(text: str) -> Const:
    """``Const(text)``, cached."""
    return Const(text)


class Slot(str):
    """A descriptor of one run of a plan, by name."""

    __slots__ = ()


class Octal(int):
    """A file mode: printed in octal."""

    def __str__(self) -> str:
        return f"{int(self):#o}"


class Hex(int):
    """A bit mask: printed in hexadecimal."""

    def __str__(self) -> str:
        return f"{int(self):#x}"


class Struct(bytes):
    """A structure that is passed by address; ``text`` is printed for it."""

    text: str

    def __new__(cls, data: bytes, text: str) -> Struct:
        self = super().__new__(cls, data)
        self.text = text
        return self

    def __getnewargs__(self) -> tuple[bytes, str]:  # type: ignore[override]
        return bytes(self), self.text


class Step(NamedTuple):
    """One primitive.

    into      the slot for the resulting descriptor
    tolerate  errno values (two at most) that are no failure; the next ``skip`` steps are then skipped
    phase     the group that the step belongs to; ``--explain`` sums times by it
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
        """The call as its man page writes it."""
        into = f"{self.into} = " if self.into else ""
        return f"{into}{self.call}({', '.join(map(show, self.args))})"


def string_list(what: str, value: object) -> tuple[str, ...]:
    """``value`` as a tuple of strings. TypeError: it is not a list of strings; nor is a single string one."""
    if type(value) is list or type(value) is tuple:
        items = tuple(value)
    elif isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{what} must be a list of strings, not {type(value).__name__}")
    else:
        items = tuple(value)
    for item in items:
        if type(item) is not str and not isinstance(item, str):
            raise TypeError(f"{what} must be a list of strings, not of {type(item).__name__}")
    return items


# ---- type checks of the step functions' arguments

KINDS: dict[str, type[Any]] = {
    "str": str, "bytes": bytes, "int": int, "bool": bool, "object": object, "None": type(None), "Slot": Slot,
    "Const": Const, "Step": Step,
}  # fmt: skip


@lru_cache(maxsize=64)
def _type_check(annotation: str) -> Callable[[object], bool]:
    """A function that checks a value against an annotation: types of KINDS, ``Sequence[X]``, a pair of ints."""
    if annotation == "Sequence[str]":
        return lambda value: True  # ``string_list`` checks it, with a better message
    if annotation.startswith("Sequence["):
        item = _type_check(annotation[len("Sequence[") : -1])
        return lambda value: (
            isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and all(map(item, value))
        )
    if annotation == "tuple[int, int] | None":
        return lambda value: value is None or (isinstance(value, tuple) and list(map(_is_int, value)) == [True, True])
    kinds = tuple(KINDS[word] for word in annotation.split(" | "))
    return lambda value: isinstance(value, kinds)


def _is_int(value: object) -> bool:
    return isinstance(value, int)


def _type_name(value: object) -> str:
    items = {type(item).__name__ for item in value} if isinstance(value, (list, tuple)) else ()
    return type(value).__name__ + (f" of {', '.join(sorted(items))}" if items else "")


def _with_checks(make: FunctionType) -> Callable[..., Step]:
    code, annotations = make.__code__, make.__annotations__
    names = code.co_varnames[: code.co_argcount]
    varargs = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :][: bool(code.co_flags & 4)]  # CO_VARARGS
    if varargs and annotations[varargs[0]] != "object":
        names += varargs * lib.MC_ARGS

    def check(name: str, value: object) -> None:
        if not _type_check(annotations[name])(value):
            raise TypeError(f"{make.__name__}: {name} must be {annotations[name]}, not {_type_name(value)}")

    def checking(*args: Any, **keywords: Any) -> Step:
        for name, value in zip(names, args, strict=False):
            if type(value).__name__ != annotations[name]:
                check(name, value)
        if keywords:
            for name, value in keywords.items():
                if name in annotations:
                    check(name, value)
        try:
            step: Step = make(*args, **keywords)
        except struct.error as e:
            reason = f"a number is out of range: {e}"
            raise SpecError("step", f"{make.__name__}({', '.join(map(show, args))})", reason) from None
        return step

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):  # as functools.wraps
        setattr(checking, name, getattr(make, name))
    setattr(checking, "__wrapped__", make)  # noqa: B010 - a type checker forbids the plain form
    return checking


def check_arguments(module: dict[str, Any]) -> None:
    """Wraps every public function of a module that returns a Step: it then checks its arguments against its
    annotations, and raises a TypeError that names the step and the argument."""
    for name, value in list(module.items()):
        if name[0] != "_" and isinstance(value, FunctionType) and value.__annotations__.get("return") == "Step":
            module[name] = _with_checks(value)


def show(arg: object) -> str:
    """An argument as it is printed."""
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
        items = ", ".join(show(a) for a in arg[:8])
        return f"[{items}{f', ... {len(arg) - 8} more' if len(arg) > 8 else ''}]"
    return format(arg)  # not str: before Python 3.11, str() of a signal is its name


def os_bytes(value: str) -> bytes:
    """A string as bytes for the kernel: UTF-8, with the surrogates of os.fsdecode for other bytes. SpecError: it has a
    NUL byte, or a surrogate that stands for no byte."""
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise SpecError("argument", value, "holds half a character") from None
    if b"\0" in data:
        raise SpecError("argument", value, "holds a NUL byte")
    return data

"""Light forms of ``dataclasses.dataclass(frozen=True)`` and of names from typing, for the modules that every start
imports: dataclasses and typing import inspect, re, enum and more, which take several times as long as a start.

A type checker sees the originals::

    if TYPE_CHECKING:
        from dataclasses import dataclass, field
        from typing import NamedTuple
    else:
        from minicontainer.records import NamedTuple, dataclass, field

where ``TYPE_CHECKING = False`` is a variable of the module, which type checkers take for typing's. Fields and methods
are those of the originals. ``dataclasses.fields``, ``replace`` and ``asdict`` accept a record: what they need is made
at first use.
"""

from __future__ import annotations

from _operator import itemgetter  # operator imports more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    R = TypeVar("R")


class _Required:
    """The default of a field that has none."""


class Field:
    """The default of a field that is made for each record."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory


def field(*, default_factory: Callable[[], Any]) -> Any:
    """As dataclasses.field."""
    return Field(default_factory)


def dataclass(*, frozen: bool) -> Callable[[type[R]], type[R]]:
    """As dataclasses.dataclass, for immutable records without base records."""
    if not frozen:
        raise TypeError("a record is immutable")
    return _make


def _make(cls: type[R]) -> type[R]:
    if hasattr(cls, "_names"):
        raise TypeError(f"{cls.__name__} has a base record: only a class that adds no fields may have one, undecorated")
    names = tuple(cls.__annotations__)
    defaults = {name: cls.__dict__.get(name, _Required) for name in names}
    factories = {name: value.factory for name, value in defaults.items() if isinstance(value, Field)}
    for name in factories:
        delattr(cls, name)
    made: dict[str, Any] = {
        "_names": names, "_defaults": defaults, "_factories": factories, "__match_args__": names,
        "_required": tuple([name for name in names if defaults[name] is _Required]),
        "__dataclass_fields__": _Lazy(lambda cls: _twin(cls).__dataclass_fields__),
        "__signature__": _Lazy(_signature),
        "__init__": _init, "__repr__": _repr, "__eq__": _eq, "__hash__": _hash, "__setattr__": _refuse,
        "__delattr__": _refuse, "__replace__": replace,
    }  # fmt: skip
    for name, value in made.items():
        if name not in cls.__dict__ or name == "__hash__":
            setattr(cls, name, value)
    return cls


def bind(cls: Any, args: tuple[object, ...], keywords: Mapping[str, object]) -> dict[str, Any]:
    """The values of all fields of a record, from the arguments of its class. TypeError as for any call."""
    names = cls._names
    if not args and keywords.keys() == cls._defaults.keys():
        return {**keywords}
    values = {**cls._defaults, **dict(zip(names, args, strict=False)), **keywords}
    if args:
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__}() takes at most {len(names)} arguments ({len(args)} given)")
        for name in names[: len(args)]:
            if name in keywords:
                raise TypeError(f"{cls.__name__}() got multiple values for argument {name!r}")
    if len(values) > len(names):
        raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {next(iter(set(values) - set(names)))!r}")
    for name, factory in cls._factories.items():
        if type(values[name]) is Field:
            values[name] = factory()
    for name in cls._required:
        if values[name] is _Required:
            raise TypeError(f"{cls.__name__}() missing required argument {name!r}")
    return values


def names(cls: type) -> tuple[str, ...]:
    """The names of a record's fields."""
    found: tuple[str, ...] = cls._names  # type: ignore[attr-defined]
    return found


def defaults(cls: type) -> Mapping[str, object]:
    """The defaults of a record's fields; objects of no use as values stand for what is required or made."""
    found: Mapping[str, object] = cls._defaults  # type: ignore[attr-defined]
    return found


def initial_values(cls: type) -> dict[str, Any]:
    """The defaults, with what is made for each record; an object of no use as a value stands for what is required."""
    made = {name: factory() for name, factory in cls._factories.items()}  # type: ignore[attr-defined]
    return {**cls._defaults, **made}  # type: ignore[attr-defined]


def is_record(value: object) -> bool:
    """Whether the value is a record that ``dataclass`` has made."""
    return hasattr(type(value), "_factories")


def replace(record: R, /, **changes: Any) -> R:
    """As dataclasses.replace, for a record."""
    values = record.__dict__
    return type(record)(**{**{name: values[name] for name in record._names}, **changes})  # type: ignore[attr-defined]


def _init(self: Any, *args: object, **keywords: object) -> None:
    self.__dict__.update(bind(type(self), args, keywords))
    check = getattr(self, "__post_init__", None)
    if check is not None:
        check()


def _values(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, name) for name in self._names])


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._names)})"


def _eq(self: Any, other: Any) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse(self: Any, name: str, *value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


class _Lazy:
    """An attribute of a class that is made when it is read."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __get__(self, record: object, cls: type) -> Any:
        return self.make(cls)


def _twin(cls: Any) -> Any:
    """A class of dataclasses with the same fields."""
    import dataclasses

    cls = _owner(cls, "_names")
    twin = cls.__dict__.get("_dataclass")
    if twin is None:
        namespace: dict[str, Any] = {"__annotations__": dict(cls.__annotations__), "__module__": cls.__module__}
        for name, default in cls._defaults.items():
            if isinstance(default, Field):
                namespace[name] = dataclasses.field(default_factory=default.factory)
            elif default is not _Required:
                namespace[name] = default
        twin = dataclasses.dataclass(frozen=True)(type(cls.__name__, (), namespace))
        type.__setattr__(cls, "_dataclass", twin)
    return twin


def _owner(cls: type, attribute: str) -> Any:
    """The class that has the attribute: ``cls``, or the one that it is a subclass of."""
    return next(base for base in cls.__mro__ if attribute in base.__dict__)


def _signature(cls: Any) -> Any:
    """What inspect.signature asks a class for; it looks at a constructor of the class's own itself."""
    import inspect

    if cls.__init__ is not _init:
        raise AttributeError("__signature__")
    return inspect.signature(_twin(cls))


# ---- names of typing


class _WithoutDict(type):
    """The type of NamedTuple and of what is made of it: a class of typing.NamedTuple has no __dict__, so it refuses any
    assignment to its attributes; subclasses of the class have one."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        if bases[0] is not tuple and NamedTuple in bases:
            namespace["__slots__"] = ()
        return type.__new__(cls, name, bases, namespace)


def _tuple_signature(cls: Any) -> Any:
    """As ``_signature``."""
    import inspect
    import typing

    if cls.__new__ is not NamedTuple.__new__ or cls.__init__ is not tuple.__init__:
        raise AttributeError("__signature__")
    annotations = _owner(cls, "_fields").__annotations__
    make: Any = typing.NamedTuple
    twin = make(cls.__name__, [(name, annotations[name]) for name in cls._fields])
    twin.__new__.__defaults__ = tuple(cls._field_defaults.values())
    return inspect.signature(twin)


class NamedTuple(tuple, metaclass=_WithoutDict):  # type: ignore[type-arg]
    """As typing.NamedTuple."""

    __slots__ = ()
    __signature__ = _Lazy(_tuple_signature)
    _fields: tuple[str, ...] = ()
    _field_defaults: Mapping[str, Any]
    _last: tuple[Any, ...]  # the defaults, which are of the last fields

    def __init_subclass__(cls) -> None:
        if NamedTuple in cls.__bases__:
            names = tuple(cls.__annotations__)
            cls._fields = names
            setattr(cls, "__match_args__", names)  # noqa: B010 - a type checker forbids the plain form
            cls._field_defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
            cls._last = tuple(cls._field_defaults.values())
            for i, name in enumerate(names):
                setattr(cls, name, property(itemgetter(i)))

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        names = cls._fields
        missing = len(names) - len(args)
        if 0 < missing <= len(cls._last) and not keywords:
            args += cls._last[-missing:]
        elif missing or keywords:
            values = {**cls._field_defaults, **dict(zip(names, args, strict=False)), **keywords}
            try:
                arranged = [values[name] for name in names]
            except KeyError as e:
                raise TypeError(f"{cls.__name__}() missing required argument {e}") from None
            if len(values) > len(names) or len(args) > len(names) or keywords.keys() & set(names[: len(args)]):
                raise TypeError(f"{cls.__name__}() takes {', '.join(names)}, not {args} {keywords}")
            args = tuple(arranged)
        return tuple.__new__(cls, args)

    @classmethod
    def _make(cls, values: Any) -> Any:
        return cls(*values)

    def _replace(self, **changes: Any) -> Any:
        values = list(self)
        for name, value in changes.items():
            if name not in self._fields:
                raise ValueError(f"{type(self).__name__} has no field {name!r}")
            values[self._fields.index(name)] = value
        return tuple.__new__(type(self), values)

    __replace__ = _replace

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({values})"


class Generic:
    """As typing.Generic at run time, where ``Generic[T]`` is Generic."""

    __slots__ = ()

    def __class_getitem__(cls, _: object) -> type:
        return cls


class TypedDict(dict):  # type: ignore[type-arg]
    """As typing.TypedDict at run time, for a class that is never called."""

    def __init_subclass__(cls, total: bool = True) -> None:
        pass


AnyStr = T = None


def overload(function: object) -> object:
    """As typing.overload at run time."""
    return function

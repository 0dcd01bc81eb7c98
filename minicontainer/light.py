"""Light forms of contextlib, threading and caches of functools, for the modules that every start imports: the originals
import collections, types, operator and more, which takes longer than a start.

A type checker sees the originals, as with minicontainer.records, which has the light forms of dataclasses and typing.
"""

from __future__ import annotations

from _functools import _lru_cache_wrapper  # functools imports more
from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class _Shown:
    """How warnings are shown, until warnings is told; None: as Python does, or warnings has been told."""

    by: Callable[..., None] | None = None


def show_warnings(show: Callable[..., None], *, now: bool) -> None:
    """Sets warnings.showwarning: ``now``, or as soon as ``warn`` is called, which imports warnings."""
    _Shown.by = show
    if now:
        _tell_warnings()


def _tell_warnings() -> None:
    import warnings

    if _Shown.by is not None:
        warnings.showwarning, _Shown.by = _Shown.by, None


def warn(message: str, category: type[Warning], stacklevel: int = 1) -> None:
    """As warnings.warn."""
    import warnings

    _tell_warnings()
    warnings.warn(message, category, stacklevel + 1)


class ExitStack:
    """As contextlib.ExitStack, with the methods that are used here."""

    def __init__(self) -> None:
        self._exits: list[Callable[..., Any]] = []

    def enter_context(self, manager: Any) -> Any:
        """Enter a context manager, and leave it at the end."""
        kind = type(manager)
        leave, value = kind.__exit__, kind.__enter__(manager)
        self._exits.append(lambda *error: leave(manager, *error))
        return value

    def callback(self, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Callable[..., Any]:
        """Call a function at the end."""

        def call(*_: object) -> None:
            function(*args, **keywords)

        self._exits.append(call)
        return function

    def pop_all(self) -> ExitStack:
        """Move all to a new stack."""
        stack = type(self)()
        stack._exits, self._exits = self._exits, []
        return stack

    def close(self) -> None:
        """The end."""
        self.__exit__(None, None, None)

    def __enter__(self) -> ExitStack:
        return self

    def __exit__(self, kind: object, first: BaseException | None, trace: object) -> bool:
        error = first
        while self._exits:
            try:
                if self._exits.pop()(error and type(error), error, error and error.__traceback__):
                    error = None
            except BaseException as e:
                error = e
        if error is not None and error is not first:
            raise error
        return first is not None and error is None


class suppress:
    """As contextlib.suppress."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self._kinds)


class _Generated:
    """What a function that contextmanager decorates returns."""

    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def __enter__(self) -> Any:
        return next(self._steps)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            for _ in self._steps:
                raise RuntimeError("a context manager has yielded twice")
            return False
        try:
            self._steps.throw(error)
        except BaseException as e:
            if e is error or (isinstance(e, RuntimeError) and e.__cause__ is error):  # PEP 479: of a StopIteration
                return False
            if isinstance(e, StopIteration):
                return True
            raise
        raise RuntimeError("a context manager has gone on after an exception")


def contextmanager(function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    """As contextlib.contextmanager, but no decorator."""

    def manager(*args: Any, **keywords: Any) -> _Generated:
        return _Generated(function(*args, **keywords))

    manager.__doc__ = function.__doc__
    return manager


class cached_property:
    """As functools.cached_property, without a lock."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value


def lru_cache(*, maxsize: int | None) -> Callable[[Callable[..., Any]], Any]:
    """As functools.lru_cache."""

    def decorate(function: Callable[..., Any]) -> Any:
        cached: Any = _lru_cache_wrapper(function, maxsize, False, lambda *counts: counts)
        cached.__wrapped__, cached.__doc__, cached.__module__ = function, function.__doc__, function.__module__
        return cached

    return decorate


class Thread:
    """As threading.Thread, for daemons."""

    def __init__(self, *, target: Callable[..., object], args: tuple[Any, ...] = (), daemon: bool) -> None:
        if not daemon:
            raise ValueError("the interpreter does not wait for this thread at its end")
        self._target, self._args = target, args
        self._lives = allocate_lock()  # held by the thread
        self._has_ended = False  # beside it: a signal handler may raise where join() holds the lock
        self._begins = allocate_lock()
        self._begins.acquire()

    def start(self) -> None:
        """Start. RuntimeError as of threading."""
        start_new_thread(self._main, ())
        self._begins.acquire()

    def _main(self) -> None:
        with self._lives:
            self._begins.release()
            try:
                self._target(*self._args)
            finally:
                self._has_ended = True

    def is_alive(self) -> bool:
        """Whether it has started and has not ended."""
        return self._lives.locked() and not self._has_ended

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, or for ``timeout`` seconds."""
        if self.is_alive() and self._lives.acquire(True, -1 if timeout is None else timeout):
            self._lives.release()


class Event:
    """As threading.Event, for one thread that waits."""

    def __init__(self) -> None:
        self._unset = allocate_lock()
        self._unset.acquire()
        self._is_set = False  # beside it: a signal handler may raise where wait() holds the lock

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def set(self) -> None:
        """Set it, once."""
        self._is_set = True
        if self._unset.locked():
            self._unset.release()

    def wait(self, timeout: float) -> bool:
        """Wait for it, ``timeout`` seconds at most; whether it was set."""
        if not self._is_set and self._unset.acquire(True, timeout):
            self._unset.release()
        return self._is_set

"""Light context managers and caches behave as the originals, which stand beside them in each test."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minicontainer import light

BOTH = pytest.mark.parametrize("forms", [contextlib, light], ids=["contextlib", "light"])


class Manager:
    """Notes its enter and exit; suppresses, or raises at its end."""

    def __init__(
        self, seen: list[Any], name: str, *, suppresses: bool = False, raises: Exception | None = None
    ) -> None:
        self.seen, self.name, self.suppresses, self.raises = seen, name, suppresses, raises

    def __enter__(self) -> str:
        self.seen.append(self.name)
        return self.name

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        self.seen.append((self.name, kind, error, trace is not None))
        if self.raises is not None:
            raise self.raises
        return self.suppresses


@BOTH
def test_a_stack_leaves_in_reverse(forms: Any) -> None:
    seen: list[Any] = []
    with forms.ExitStack() as stack:
        assert stack.enter_context(Manager(seen, "a")) == "a"
        stack.callback(seen.append, "called")
        stack.enter_context(Manager(seen, "b"))
    assert seen == ["a", "b", ("b", None, None, False), "called", ("a", None, None, False)]


@BOTH
def test_an_error_goes_through_a_stack_until_it_is_suppressed(forms: Any) -> None:
    seen: list[Any] = []
    error = ValueError("x")
    with forms.ExitStack() as stack:
        stack.enter_context(Manager(seen, "a"))
        stack.enter_context(Manager(seen, "b", suppresses=True))
        stack.enter_context(Manager(seen, "c"))
        raise error
    assert seen[3:] == [("c", ValueError, error, True), ("b", ValueError, error, True), ("a", None, None, False)]


@BOTH
def test_an_error_of_an_exit_replaces_the_first_and_all_are_left(forms: Any) -> None:
    seen: list[Any] = []
    second = KeyError("second")

    def leave(first: Exception | None, *, suppresses: bool = False) -> None:
        with forms.ExitStack() as stack:
            stack.enter_context(Manager(seen, "a", suppresses=suppresses))
            stack.enter_context(Manager(seen, "b", raises=second))
            if first is not None:
                raise first

    with pytest.raises(KeyError) as caught:
        leave(ValueError("first"))
    assert caught.value is second
    assert isinstance(second.__context__, ValueError)
    assert seen[-1] == ("a", KeyError, second, True)
    with pytest.raises(KeyError):
        leave(None)
    leave(None, suppresses=True)
    leave(ValueError("first"), suppresses=True)


@BOTH
def test_what_was_moved_is_left_by_the_new_stack(forms: Any) -> None:
    seen: list[Any] = []
    with forms.ExitStack() as stack:
        stack.callback(seen.append, 1)
        moved = stack.pop_all()
    assert seen == []
    moved.close()
    moved.close()
    assert seen == [1]


@BOTH
def test_suppression(forms: Any) -> None:
    with forms.suppress(OSError, KeyError):
        raise FileNotFoundError
    with pytest.raises(ValueError), forms.suppress(OSError):
        raise ValueError
    with forms.suppress(OSError):
        pass


@BOTH
def test_a_generator_is_a_manager(forms: Any) -> None:
    seen: list[Any] = []

    @forms.contextmanager  # type: ignore[untyped-decorator]
    def manager(catches: type[Exception]) -> Iterator[int]:
        try:
            yield 1
        except catches as e:
            seen.append(e)
        finally:
            seen.append("left")

    with manager(KeyError) as value:
        assert value == 1
    assert seen == ["left"]
    error = KeyError()
    with manager(KeyError):
        raise error
    assert seen == ["left", error, "left"]
    for other in (ValueError(), StopIteration(), RuntimeError(), KeyboardInterrupt()):
        with pytest.raises(type(other)) as caught, manager(KeyError):
            raise other
        assert caught.value is other


@BOTH
def test_a_generator_may_change_the_error_and_yields_once(forms: Any) -> None:
    @forms.contextmanager  # type: ignore[untyped-decorator]
    def changes() -> Iterator[None]:
        try:
            yield
        except ValueError:
            raise KeyError from None

    with pytest.raises(KeyError), changes():
        raise ValueError

    @forms.contextmanager  # type: ignore[untyped-decorator]
    def twice() -> Iterator[None]:
        with contextlib.suppress(ValueError):
            yield
        yield

    with pytest.raises(RuntimeError), twice():
        pass
    with pytest.raises(RuntimeError), twice():
        raise ValueError


@pytest.mark.parametrize("forms", [functools, light], ids=["functools", "light"])
def test_a_cache_is_bounded_and_can_be_cleared(forms: Any) -> None:
    calls = []

    @forms.lru_cache(maxsize=2)  # type: ignore[untyped-decorator]
    def double(number: int, *, by: int = 2) -> int:
        calls.append(number)
        return number * by

    assert [double(1), double(1), double(1, by=3), double(2), double(2), double(1)] == [2, 2, 3, 4, 4, 2]
    assert calls == [1, 1, 2, 1]
    double.cache_clear()
    assert double(1) == 2
    assert calls == [1, 1, 2, 1, 1]
    assert double.__wrapped__(3) == 6


@pytest.mark.parametrize("forms", [threading, light], ids=["threading", "light"])
def test_a_thread_lives_until_its_function_returns(forms: Any) -> None:
    go, seen = forms.Event(), []
    thread = forms.Thread(target=lambda word: seen.append((go.wait(60), word)), args=("a",), daemon=True)
    assert not thread.is_alive()
    thread.start()
    assert thread.is_alive()
    thread.join(0.001)
    assert (thread.is_alive(), go.is_set(), seen) == (True, False, [])
    go.set()
    go.set()
    thread.join()
    assert (thread.is_alive(), go.is_set(), go.wait(0), seen) == (False, True, True, [(True, "a")])
    assert forms.Event().wait(0) is False


@pytest.mark.parametrize("forms", [functools, light], ids=["functools", "light"])
def test_a_property_is_made_once(forms: Any) -> None:
    class Made:
        def make(self) -> object:
            return object()

        value = forms.cached_property(make)

    made, other = Made(), Made()
    assert made.value is made.value
    assert made.value is not other.value
    assert isinstance(Made.value, forms.cached_property)


SHOWN = """
import warnings
from minicontainer import light
said = []
light.show_warnings(lambda message, *_: said.append(str(message)), now={now})
with warnings.catch_warnings(record=True) as recorded:
    warnings.simplefilter("always")
    if {now}:
        light.warn("recorded", UserWarning)
light.warn("shown", UserWarning)
print([str(w.message) for w in recorded], said)
"""


@pytest.mark.parametrize("now", [True, False])
def test_warnings_are_shown_as_was_said_and_can_be_recorded(now: bool) -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN.format(now=now)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{['recorded'] if now else []} ['shown']\n"

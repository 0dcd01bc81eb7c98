"""The interface to the C core: the only importer of ``_native``.

C returns results or ``-errno``; ``check`` turns the latter into an ``OSError`` that names the call and its arguments.
"""

from __future__ import annotations

import os.path
from time import monotonic_ns

from minicontainer._native import ffi, lib
from minicontainer.errors import StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LIBEXEC", "check", "ffi", "lib", "now", "syscall", "syscall_as"]

LIBEXEC = os.path.join(
    os.path.dirname(__file__), "libexec"
)  # directory of the static programs, built with the extension
now = monotonic_ns  # CLOCK_MONOTONIC, as in every record


def check(result: int, call: str, *what: object) -> int:
    """``result``; where it is ``-errno``, a ``StepError`` (an OSError) that names ``call(what...)``."""
    if result < 0:
        raise StepError(-result, f"{call}({', '.join(map(_format, what))})")
    return result


def _format(value: object) -> str:
    """As a man page writes it; a ``plan.Const`` by its name."""
    if value is None:
        return "NULL"
    return getattr(value, "text", "") or (repr(value) if isinstance(value, str) else format(value))


def syscall(call: str, number: int, *args: int | bytes | bytearray | None, what: tuple[object, ...] = ()) -> int:
    """The system call ``number``, with ints, buffers or None (NULL) as its arguments.

    Buffers are passed by address; one that the kernel writes must be a bytearray."""
    buffers = [ffi.from_buffer(a) if isinstance(a, (bytes, bytearray)) else a for a in args]
    result: int = lib.mc_syscall(number, *_as_words(buffers, 6))
    return check(result, call, *(what or (a for a in args if a is not None)))


def syscall_as(
    ids: tuple[int, int], call: str, number: int, *args: int | bytes | None, what: tuple[object, ...] = ()
) -> int:
    """``syscall`` with ``ids`` (user, group) as its file system ids (setfsuid(2)); five arguments at the most."""
    buffers = [ffi.from_buffer(a) if isinstance(a, bytes) else a for a in args]
    result: int = lib.mc_syscall_as(*ids, number, *_as_words(buffers, 5))
    return check(result, call, *(what or (a for a in args if a is not None)))


def _as_words(values: list[Any], count: int) -> list[int]:
    return [_as_word(value) for value in values] + [0] * (count - len(values))


def _as_word(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFFFFFFFFFFFFFFFF
    return int(ffi.cast("uintptr_t", value))

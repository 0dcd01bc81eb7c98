"""The one door to the C core: the only importer of ``_native``. Nothing here decides anything.

C returns results or ``-errno``; ``check`` turns the latter into an ``OSError`` that names the call and its object.
"""

from __future__ import annotations

import os.path
from typing import Any

from minicontainer._native import ffi, lib
from minicontainer.errors import StepError

__all__ = ["LIBEXEC", "check", "ffi", "lib", "now", "syscall", "syscall_as"]

LIBEXEC = os.path.join(os.path.dirname(__file__), "libexec")  # the static programs that are built with the extension
now = lib.mc_now  # CLOCK_MONOTONIC in nanoseconds, as in every record


def check(result: int, call: str, *what: object) -> int:
    """``result``, or a ``StepError`` (an OSError) saying ``call(what...)`` where it is ``-errno``."""
    if result < 0:
        raise StepError(-result, f"{call}({', '.join(map(_shown, what))})")
    return result


def _shown(value: object) -> str:
    """As a man page would write it; constants by name where they have one (``plan.Const``)."""
    if value is None:
        return "NULL"
    return getattr(value, "text", "") or (repr(value) if isinstance(value, str) else format(value))


def syscall(call: str, number: int, *args: int | bytes | bytearray | None, what: tuple[object, ...] = ()) -> int:
    """The system call ``number``, with ints, buffers or None (NULL) as its arguments.

    Bytes are passed by address as they are; where the kernel writes, it must be a bytearray."""
    keep = [ffi.from_buffer(a) if isinstance(a, (bytes, bytearray)) else a for a in args]
    result: int = lib.mc_syscall(number, *_words(keep, 6))
    return check(result, call, *(what or (a for a in args if a is not None)))


def syscall_as(
    ids: tuple[int, int], call: str, number: int, *args: int | bytes | None, what: tuple[object, ...] = ()
) -> int:
    """``syscall`` (of five arguments at the most) with the file system ids (user, group) of somebody else."""
    keep = [ffi.from_buffer(a) if isinstance(a, bytes) else a for a in args]
    result: int = lib.mc_syscall_as(*ids, number, *_words(keep, 5))
    return check(result, call, *(what or (a for a in args if a is not None)))


def _words(values: list[Any], count: int) -> list[int]:
    return [_word(value) for value in values] + [0] * (count - len(values))


def _word(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFFFFFFFFFFFFFFFF
    return int(ffi.cast("uintptr_t", value))

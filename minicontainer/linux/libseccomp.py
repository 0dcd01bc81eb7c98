"""libseccomp: system call numbers of all architectures, and compilation of filters. Opened at first use."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from minicontainer.errors import StepError, UnsupportedError
from minicontainer.native import lib

SONAME = "libseccomp.so.2"
REMEDY = "install libseccomp2, or --security-opt seccomp=unconfined"
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # of SCMP_CMP_*


class Condition(NamedTuple):
    """``argument operator value``; MASKED_EQ: ``argument & value == second``."""

    argument: int
    operator: str
    value: int
    second: int = 0


class Rule(NamedTuple):
    """``action`` (SECCOMP_RET_*) for the system call ``name`` if all conditions hold."""

    name: str
    action: int
    conditions: tuple[Condition, ...] = ()


@cache
def _library() -> tuple[Any, Any]:
    """The cffi ffi object and the opened library. UnsupportedError if it is not installed."""
    from minicontainer._libseccomp import ffi

    try:
        return ffi, ffi.dlopen(SONAME)
    except OSError as e:
        reason = f"a filter needs libseccomp, which cannot be opened: {e}"
        raise UnsupportedError("seccomp", None, reason, REMEDY) from None


def version() -> str:
    """seccomp_version(3), such as ``2.5.4``."""
    _, library = _library()
    parts = library.seccomp_version()
    return f"{parts.major}.{parts.minor}.{parts.micro}"


def path() -> str:
    """The path of the library's soname link, which an upgrade would replace."""
    _library()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        name = next(line.split(maxsplit=5)[5].rstrip("\n") for line in f if "/libseccomp.so" in line)
    return os.path.join(os.path.dirname(name), SONAME)


def number(name: str) -> int:
    """The number of a system call on this architecture; negative if there is none."""
    _, library = _library()
    value: int = library.seccomp_syscall_resolve_name(os.fsencode(name))
    return value


def newest(names: Iterable[str], architecture: str = "") -> tuple[int, int]:
    """(AUDIT_ARCH_*, highest number of these calls) on this architecture, or on another (``x86``, ``x32`` ...) that the
    kernel supports. The number is negative if there is none."""
    _, library = _library()
    token = library.seccomp_arch_resolve_name(os.fsencode(architecture)) if architecture else lib.AUDIT_ARCH_NATIVE
    numbers = (library.seccomp_syscall_resolve_name_arch(token, os.fsencode(name)) for name in names)
    # a token is an AUDIT_ARCH_*, except for x32, which differs from x86_64 in the call numbers only
    return lib.AUDIT_ARCH_NATIVE if architecture == "x32" else token, max(numbers, default=-1)


def compile(default: int, rules: Iterable[Rule], architectures: Sequence[str] = ()) -> bytes:
    """A program (struct sock_filter[]) that returns ``default`` if no rule matches.

    ``architectures`` (``x86``, ``x32`` ...) are supported in addition to this process's own; a call of any other kills
    the process. Calls unknown to the library are left out, and so are rules whose action is ``default``.
    StepError where the library refuses a rule, such as one with two conditions on one argument."""
    ffi, library = _library()
    context = library.seccomp_init(default)
    if context == ffi.NULL:
        raise StepError(errno.EINVAL, f"seccomp_init({default:#x})")
    try:
        _set_up(library, context, architectures)
        for rule in dict.fromkeys(rules):
            call = number(rule.name)
            if call == library.NR_SCMP_ERROR or rule.action == default:
                continue
            compared = [_comparison(library, condition) for condition in rule.conditions]
            array = ffi.new("struct scmp_arg_cmp[]", compared or 1)
            result = library.seccomp_rule_add_array(context, rule.action, call, len(compared), array)
            _check(result, f"seccomp_rule_add_array({rule.name})")
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _set_up(library: Any, context: Any, architectures: Sequence[str]) -> None:
    for name in architectures:
        token = library.seccomp_arch_resolve_name(os.fsencode(name))
        _check(library.seccomp_arch_add(context, token), f"seccomp_arch_add({name})")
    kill = lib.SECCOMP_RET_KILL_PROCESS
    _check(library.seccomp_attr_set(context, library.SCMP_FLTATR_ACT_BADARCH, kill), "seccomp_attr_set(ACT_BADARCH)")
    library.seccomp_attr_set(context, library.SCMP_FLTATR_CTL_OPTIMIZE, 2)  # before 2.5 there is no such attribute


def _comparison(library: Any, condition: Condition) -> dict[str, int]:
    operator = getattr(library, f"SCMP_CMP_{condition.operator}")
    return {"arg": condition.argument, "op": operator, "datum_a": condition.value, "datum_b": condition.second}


def _exported(library: Any, context: Any) -> bytes:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, fd), "seccomp_export_bpf")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _check(result: int, call: str) -> None:
    if result < 0:
        raise StepError(-result, call)

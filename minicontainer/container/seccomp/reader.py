"""Reads profiles in JSON, of docker and the OCI runtime specification (config-linux.md, "Seccomp"), strictly.

An unknown or unsupported member is an error that names its place. Names of system calls are not checked: profiles name
the calls of many kernels and architectures, and libseccomp ignores those it does not know.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from typing import Any

from minicontainer.container.seccomp.profile import NATIVE, Entry, Profile, Requirements
from minicontainer.errors import SpecError, quote
from minicontainer.linux.libseccomp import OPERATORS, Condition
from minicontainer.native import lib
from minicontainer.spec import CAPABILITIES

ACTIONS = {
    "SCMP_ACT_ALLOW": lib.SECCOMP_RET_ALLOW,
    "SCMP_ACT_ERRNO": lib.SECCOMP_RET_ERRNO,
    "SCMP_ACT_KILL": lib.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": lib.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": lib.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_LOG": lib.SECCOMP_RET_LOG,
    "SCMP_ACT_TRACE": lib.SECCOMP_RET_TRACE,
    "SCMP_ACT_TRAP": lib.SECCOMP_RET_TRAP,
}
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPEN = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")  # default actions of a profile that lists forbidden calls
ERRNO_MAX = 4095
ARCHITECTURES = (
    "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 PPC"
    " PPC64 PPC64LE RISCV64 S390 S390X SH SHEB"
).split()
GO_ARCHITECTURES = (  # the values of arches in includes and excludes
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mips64n32 mipsel mipsel64 mipsel64n32 mipsle ppc ppc64 ppc64le"
    " riscv64 s390 s390x x32 x86"
).split()


class _InvalidProfile(Exception):
    """An error in a profile, with its place."""

    def __init__(self, where: str, value: object, reason: str) -> None:
        super().__init__(f"{where or 'the profile'} {quote(json.dumps(value))} {reason}")


def read(data: bytes, source: str | None = None) -> Profile:
    """Reads a profile from JSON. SpecError names the place of an error."""
    try:
        return _profile(json.loads(data.decode("utf-8"), object_pairs_hook=_object), source)
    except _InvalidProfile as e:
        raise SpecError("seccomp", source, str(e)) from None
    except RecursionError:
        raise SpecError("seccomp", source, "is nested too deeply") from None
    except ValueError as e:
        raise SpecError("seccomp", source, f"is no JSON: {e}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise _InvalidProfile("the key", next(n for n in names if names.count(n) > 1), "is there more than once")
    return members


def _profile(value: object, source: str | None) -> Profile:
    keys = "defaultAction defaultErrnoRet defaultErrno archMap architectures flags syscalls comment"
    top = _fields("", value, keys, ("defaultAction",))
    _strings("comment", [c] if isinstance(c := top.get("comment", []), str) else c)
    for flag in _strings("flags", top.get("flags", [])):
        if flag != "SECCOMP_FILTER_FLAG_TSYNC":  # without effect: a container starts with one thread
            raise _InvalidProfile("flags:", flag, "cannot be kept")
    if "archMap" in top and "architectures" in top:
        raise _InvalidProfile("archMap", top["archMap"], "cannot be beside architectures")
    named = _architectures("architectures", top.get("architectures", [])) or _mapped(top.get("archMap", []))
    others = tuple(name.lower() for name in NATIVE.others if name in named)
    default = _action(top, "defaultAction", "defaultErrnoRet", "defaultErrno")
    entries = tuple(_entry(f"syscalls[{i}]", e) for i, e in enumerate(_list("syscalls", top.get("syscalls", []))))
    enosys = top["defaultAction"] not in OPEN and not {"defaultErrnoRet", "defaultErrno"} & set(top)
    return Profile(source, default, others, entries, enosys)


def _mapped(value: object) -> list[str]:
    """docker's archMap: the other architectures whose calls the native architecture's kernel accepts."""
    names = []
    for i, item in enumerate(_list("archMap", value)):
        where = f"archMap[{i}]"
        pair = _fields(where, item, "architecture subArchitectures", ("architecture",))
        (main,) = _architectures(f"{where}.architecture", [pair["architecture"]])
        others = _architectures(f"{where}.subArchitectures", pair.get("subArchitectures", []))
        names += others if main == NATIVE.name else []
    return names


def _architectures(where: str, value: object) -> list[str]:
    names = _strings(where, value)
    for name in names:
        if name.removeprefix("SCMP_ARCH_") not in ARCHITECTURES or not name.startswith("SCMP_ARCH_"):
            raise _InvalidProfile(where, name, "is no architecture such as SCMP_ARCH_X86_64")
    return [name.removeprefix("SCMP_ARCH_") for name in names]


def _entry(where: str, value: object) -> Entry:
    entry = _fields(where, value, "names name action errnoRet errno args comment includes excludes", ("action",))
    if ("name" in entry) == ("names" in entry):
        raise _InvalidProfile(where, value, "must have names (or, as once, name)")
    names = _strings(f"{where}.names", entry["names"] if "names" in entry else [entry["name"]])
    for name in names or [""]:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise _InvalidProfile(f"{where}.names", name, "is no name of a system call")
    conditions = [_condition(f"{where}.args[{i}]", a) for i, a in enumerate(_list(where, entry.get("args", [])))]
    includes = _requirements(f"{where}.includes", entry.get("includes", {}))
    excludes = _requirements(f"{where}.excludes", entry.get("excludes", {}))
    action = _action(entry, "action", "errnoRet", "errno", f"{where}.")
    return Entry(tuple(names), action, tuple(conditions), includes, excludes)


def _action(members: Mapping[str, Any], key: str, number_key: str, name_key: str, where: str = "") -> int:
    """An action with its errno: by number (OCI), by name (podman), or EPERM."""
    name = members[key]
    if not isinstance(name, str) or name not in ACTIONS:
        reason = "cannot be kept: nobody would listen" if name == "SCMP_ACT_NOTIFY" else "is no action"
        raise _InvalidProfile(where + key, name, reason)
    number = _whole(where + number_key, members.get(number_key, errno.EPERM), ERRNO_MAX)
    if name_key in members:
        named = getattr(errno, str(members[name_key]), None) if str(members[name_key]).startswith("E") else None
        if named is None or members.get(number_key, named) != named:
            raise _InvalidProfile(where + name_key, members[name_key], f"is no errno, or not that of {number_key}")
        number = named
    if name in WITH_ERRNO:
        return ACTIONS[name] | number
    if number_key in members or name_key in members:
        raise _InvalidProfile(where + key, name, f"has no {number_key if number_key in members else name_key}")
    return ACTIONS[name]


def _condition(where: str, data: object) -> Condition:
    item = _fields(where, data, "index value valueTwo op", ("index", "value", "op"))
    index = _whole(f"{where}.index", item["index"], 5)
    value = _whole(f"{where}.value", item["value"], 2**64 - 1)
    second = _whole(f"{where}.valueTwo", item.get("valueTwo", 0), 2**64 - 1)
    name = item["op"]
    operator = name.removeprefix("SCMP_CMP_") if isinstance(name, str) and name.startswith("SCMP_CMP_") else ""
    if operator not in OPERATORS:
        raise _InvalidProfile(f"{where}.op", name, "is no operator such as SCMP_CMP_EQ")
    never = {"LT": value == 0, "GT": value == 2**64 - 1, "MASKED_EQ": bool(second & ~value)}.get(operator, False)
    if never:
        raise _InvalidProfile(where, data, "can never hold")
    return Condition(index, operator, value, second if operator == "MASKED_EQ" else 0)


def _requirements(where: str, value: object) -> Requirements:
    members = _fields(where, value, "caps arches minKernel")
    mask = 0
    for name in _strings(f"{where}.caps", members.get("caps", [])):
        short = name.removeprefix("CAP_")
        if short not in CAPABILITIES or short == name:
            raise _InvalidProfile(f"{where}.caps", name, "is no capability such as CAP_SYS_ADMIN")
        mask |= 1 << CAPABILITIES.index(short)
    arches = _strings(f"{where}.arches", members.get("arches", []))
    for name in arches:
        if name not in GO_ARCHITECTURES:
            raise _InvalidProfile(f"{where}.arches", name, "is no architecture such as amd64")
    kernel = members.get("minKernel", "0.0")
    if not isinstance(kernel, str) or not re.fullmatch(r"[0-9]{1,5}\.[0-9]{1,5}", kernel):
        raise _InvalidProfile(f"{where}.minKernel", kernel, "is no release such as 4.8")
    release = tuple(int(part) for part in kernel.split(".")) if "minKernel" in members else ()
    return Requirements(mask, tuple(arches), release)


# ---- values


def _fields(where: str, value: object, known: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The members of an object that are not null (Go writes null for an absent member), all of them known."""
    if not isinstance(value, dict):
        raise _InvalidProfile(where, value, "must be an object")
    for key in value:
        if key not in known.split():
            raise _InvalidProfile(f"{where}: the key" if where else "the key", key, "is unknown, or cannot be kept")
    members = {key: member for key, member in value.items() if member is not None}
    for key in required:
        if key not in members:
            raise _InvalidProfile(where, value, f"has no {key}")
    if where and not isinstance(members.get("comment", ""), str):
        raise _InvalidProfile(f"{where}.comment", members["comment"], "must be a string")
    return members


def _list(where: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _InvalidProfile(where, value, "must be a list")
    return value


def _strings(where: str, value: object) -> list[str]:
    for item in _list(where, value):
        if not isinstance(item, str):
            raise _InvalidProfile(where, item, "must be a string")
    return _list(where, value)


def _whole(where: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _InvalidProfile(where, value, f"must be a whole number from 0 to {most}")
    return value

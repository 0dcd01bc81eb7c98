"""A seccomp profile: what it says, decided for one container, and made into a filter by libseccomp."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import NamedTuple

from minicontainer.errors import SpecError, StepError
from minicontainer.linux import bpf, libseccomp
from minicontainer.linux.libseccomp import Condition, Rule
from minicontainer.native import lib


class Machine(NamedTuple):
    """An architecture of ours: its name in profiles, go's name for it, and others whose calls its kernel takes."""

    name: str
    go: str
    others: tuple[str, ...]


HERE = {
    lib.AUDIT_ARCH_X86_64: Machine("X86_64", "amd64", ("X86", "X32")),
    lib.AUDIT_ARCH_AARCH64: Machine("AARCH64", "arm64", ("ARM",)),
}[lib.AUDIT_ARCH_NATIVE]


class Demand(NamedTuple):
    """Of ``includes`` or ``excludes``; what is not said is empty."""

    capabilities: int = 0
    architectures: tuple[str, ...] = ()
    kernel: tuple[int, ...] = ()


class Entry(NamedTuple):
    """One of ``syscalls``."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...]
    includes: Demand
    excludes: Demand

    def applies(self, capabilities: int, kernel: tuple[int, ...]) -> bool:
        """As docker decides: all that is included must be so, and nothing that is excluded."""
        wanted, unwanted = self.includes, self.excludes
        return (
            capabilities & wanted.capabilities == wanted.capabilities
            and (not wanted.architectures or HERE.go in wanted.architectures)
            and kernel >= wanted.kernel
            and not capabilities & unwanted.capabilities
            and HERE.go not in unwanted.architectures
            and not (unwanted.kernel and kernel >= unwanted.kernel)
        )

    def rules(self) -> Iterator[Rule]:
        """As runc has it: conditions on different arguments hold together, those on one argument are alternatives."""
        arguments = [condition.argument for condition in self.conditions]
        alternatives = [self.conditions]
        if len(set(arguments)) < len(arguments):
            alternatives = [(condition,) for condition in self.conditions]
        yield from (Rule(name, self.action, conditions) for name in self.names for conditions in alternatives)


class Profile(NamedTuple):
    """A profile as it was read. ``ends``: whether the calls that are newer than all that it names answer ENOSYS."""

    source: str | None
    default: int
    architectures: tuple[str, ...]
    entries: tuple[Entry, ...]
    ends: bool = False

    def rules(self, capabilities: int, release: str) -> list[Rule]:
        """What it says for a container with these capabilities (a mask) on a kernel of this release. Where a call is
        given two answers without a condition the first counts, as in runc: podman's own profile has such calls."""
        kernel = tuple(int(part) for part in re.findall(r"[0-9]+", release)[:2])
        rules = [rule for e in self.entries if e.applies(capabilities, kernel) for rule in e.rules()]
        plain = {rule.name: rule for rule in reversed(rules) if not rule.conditions}
        return [rule for rule in rules if rule.conditions or rule is plain[rule.name]]


def program(profile: Profile, capabilities: int, release: str) -> bytes:
    """The filter (struct sock_filter[]). SpecError where the profile asks for what libseccomp does not do."""
    rules = profile.rules(capabilities, release)
    try:
        made = bpf.optimize(_ended(profile, rules, libseccomp.compile(profile.default, rules, profile.architectures)))
    except StepError as e:
        raise SpecError("seccomp", profile.source, f"libseccomp refuses it: {e}") from None
    if len(made) > bpf.PROGRAM_MAX:
        count = len(made) // bpf.INSTRUCTION.size
        reason = f"makes {count} instructions, where the kernel takes {bpf.INSTRUCTIONS_MAX}"
        raise SpecError("seccomp", profile.source, reason)
    if name := _unkept(made, rules):
        reason = f"args of {name} would not be kept: libseccomp prefers another rule, with wider args or none"
        raise SpecError("seccomp", profile.source, reason)
    return made


def _ended(profile: Profile, rules: list[Rule], made: bytes) -> bytes:
    """With ENOSYS for calls newer than the newest that is named, as runc has it (libcontainer/seccomp/patchbpf):
    who wrote the list knew none of them, and the C library then takes an older one. To ``clone3`` it must be so, else
    programs have no threads (glibc 2.34)."""
    if not profile.ends:
        return made
    names = [rule.name for rule in rules]
    newest = [libseccomp.newest(names, architecture) for architecture in ("", *profile.architectures)]
    enosys = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
    return bpf.answer_newer([(arch, number) for arch, number in newest if number >= 0], enosys, made)


def _unkept(made: bytes, rules: list[Rule]) -> str:
    """A call whose rules are not kept. libseccomp drops the conditions of a call that is also named without any, and
    has an order of its own for rules that overlap. So each rule with conditions is tried: the answer must be its own,
    or that of another one with conditions which hold too."""
    calls: dict[str, list[Rule]] = {}
    for rule in rules:
        if not _always(rule):
            calls.setdefault(rule.name, []).append(rule)
    for name, narrow in calls.items():
        number = libseccomp.number(name)
        for rule in narrow if number >= 0 else ():
            arguments = [0] * 6
            for condition in rule.conditions:
                arguments[condition.argument] = _example(condition)
            answers = {other.action for other in narrow if all(_holds(c, arguments) for c in other.conditions)}
            if bpf.evaluate(made, number, lib.AUDIT_ARCH_NATIVE, arguments) not in answers:
                return name
    return ""


def _always(rule: Rule) -> bool:
    return all(c.operator == "GE" and c.value == 0 for c in rule.conditions)


def _example(condition: Condition) -> int:
    """A value for which it holds."""
    _, operator, value, second = condition
    return {"NE": value ^ 1, "LT": value - 1, "GT": value + 1, "MASKED_EQ": second}.get(operator, value)


def _holds(condition: Condition, arguments: list[int]) -> bool:
    a, value = arguments[condition.argument], condition.value
    return {
        "NE": a != value,
        "LT": a < value,
        "LE": a <= value,
        "EQ": a == value,
        "GE": a >= value,
        "GT": a > value,
        "MASKED_EQ": a & value == condition.second,
    }[condition.operator]

"""A seccomp profile: its rules for one container, and their compilation to a filter by libseccomp."""

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
    """A supported architecture: its name in profiles, its name in Go, and the other architectures whose system calls
    its kernel accepts."""

    name: str
    go: str
    others: tuple[str, ...]


NATIVE = {
    lib.AUDIT_ARCH_X86_64: Machine("X86_64", "amd64", ("X86", "X32")),
    lib.AUDIT_ARCH_AARCH64: Machine("AARCH64", "arm64", ("ARM",)),
}[lib.AUDIT_ARCH_NATIVE]


class Requirements(NamedTuple):
    """The ``includes`` or ``excludes`` of an entry; empty where the profile has none."""

    capabilities: int = 0
    architectures: tuple[str, ...] = ()
    kernel: tuple[int, ...] = ()


class Entry(NamedTuple):
    """An entry of ``syscalls``."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...]
    includes: Requirements
    excludes: Requirements

    def applies(self, capabilities: int, kernel: tuple[int, ...]) -> bool:
        """Whether the entry applies, as docker decides: all of ``includes`` hold, and none of ``excludes``."""
        includes, excludes = self.includes, self.excludes
        return (
            capabilities & includes.capabilities == includes.capabilities
            and (not includes.architectures or NATIVE.go in includes.architectures)
            and kernel >= includes.kernel
            and not capabilities & excludes.capabilities
            and NATIVE.go not in excludes.architectures
            and not (excludes.kernel and kernel >= excludes.kernel)
        )

    def rules(self) -> Iterator[Rule]:
        """The entry's rules, as runc's: conditions on different arguments must all hold; if two are on the same
        argument, the conditions are alternatives."""
        arguments = [condition.argument for condition in self.conditions]
        alternatives = [self.conditions]
        if len(set(arguments)) < len(arguments):
            alternatives = [(condition,) for condition in self.conditions]
        yield from (Rule(name, self.action, conditions) for name in self.names for conditions in alternatives)


class Profile(NamedTuple):
    """A profile as it was read. ``enosys``: calls that are newer than every call in the profile return ENOSYS."""

    source: str | None
    default: int
    architectures: tuple[str, ...]
    entries: tuple[Entry, ...]
    enosys: bool = False

    def rules(self, capabilities: int, release: str) -> list[Rule]:
        """The rules for a container with these capabilities (a mask) on a kernel of this release. Where a call has two
        rules without conditions, the first is used, as in runc: podman's own profile has such calls."""
        kernel = tuple(int(part) for part in re.findall(r"[0-9]+", release)[:2])
        rules = [rule for e in self.entries if e.applies(capabilities, kernel) for rule in e.rules()]
        plain = {rule.name: rule for rule in reversed(rules) if not rule.conditions}
        return [rule for rule in rules if rule.conditions or rule is plain[rule.name]]


def program(profile: Profile, capabilities: int, release: str) -> bytes:
    """Compiles the filter (struct sock_filter[]). SpecError where libseccomp cannot implement the profile."""
    rules = profile.rules(capabilities, release)
    try:
        compiled = libseccomp.compile(profile.default, rules, profile.architectures)
        filter_ = bpf.optimize(_with_enosys(profile, rules, compiled))
    except StepError as e:
        raise SpecError("seccomp", profile.source, f"libseccomp refuses it: {e}") from None
    if len(filter_) > bpf.PROGRAM_MAX:
        count = len(filter_) // bpf.INSTRUCTION.size
        reason = f"makes {count} instructions, where the kernel takes {bpf.INSTRUCTIONS_MAX}"
        raise SpecError("seccomp", profile.source, reason)
    if name := _lost_condition(filter_, rules):
        reason = f"args of {name} would not be kept: libseccomp prefers another rule, with wider args or none"
        raise SpecError("seccomp", profile.source, reason)
    return filter_


def _with_enosys(profile: Profile, rules: list[Rule], compiled: bytes) -> bytes:
    """Adds ENOSYS for calls newer than the newest call in the profile, as runc does (libcontainer/seccomp/patchbpf):
    the author of the profile did not know them, and on ENOSYS a C library falls back to an older call. Without it for
    ``clone3``, programs have no threads (glibc 2.34)."""
    if not profile.enosys:
        return compiled
    names = [rule.name for rule in rules]
    newest = [libseccomp.newest(names, architecture) for architecture in ("", *profile.architectures)]
    enosys = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
    return bpf.answer_newer([(arch, number) for arch, number in newest if number >= 0], enosys, compiled)


def _lost_condition(filter_: bytes, rules: list[Rule]) -> str:
    """The name of a call whose conditions the filter does not implement; "" where there is none.

    libseccomp drops the conditions of a call that also has a rule without any, and orders overlapping rules itself. So
    the filter is evaluated for an example of each rule with conditions: the answer must be that rule's, or that of
    another rule whose conditions also hold."""
    calls: dict[str, list[Rule]] = {}
    for rule in rules:
        if not _always(rule):
            calls.setdefault(rule.name, []).append(rule)
    for name, conditional in calls.items():
        number = libseccomp.number(name)
        for rule in conditional if number >= 0 else ():
            arguments = [0] * 6
            for condition in rule.conditions:
                arguments[condition.argument] = _example(condition)
            answers = {other.action for other in conditional if all(_holds(c, arguments) for c in other.conditions)}
            if bpf.evaluate(filter_, number, lib.AUDIT_ARCH_NATIVE, arguments) not in answers:
                return name
    return ""


def _always(rule: Rule) -> bool:
    return all(c.operator == "GE" and c.value == 0 for c in rule.conditions)


def _example(condition: Condition) -> int:
    """A value for which the condition holds."""
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

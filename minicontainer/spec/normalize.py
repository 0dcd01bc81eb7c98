"""Converts the fields of a spec to the types that the rest of the package expects: strings in the command line's form
become parts, lists become tuples, mappings become read-only. Another type is a ``SpecError`` that names the field."""

from __future__ import annotations

from _collections_abc import Mapping  # collections.abc imports collections

from minicontainer.errors import SpecError
from minicontainer.records import names
from minicontainer.spec.convert import flag, mapping, sequence
from minicontainer.spec.limits import NO_LIMITS, Limits
from minicontainer.spec.values import error_context, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

FLAGS = ("ephemeral", "read_only", "init", "tty", "no_new_privileges", "privileged", "die_with_parent")
NAMES = ("group_add", "cap_add", "cap_drop", "dns")
PARTS = ("mounts", "devices", "ulimits", "ports")
NAMES_OF_LIMITS = names(Limits)


def normalize(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The converted values of those fields of a Spec that accept several types; without those of family.CHANGING."""
    result: dict[str, Any] = {}
    for name in FLAGS:
        flag(name, fields[name])
    if fields["no_new_suid"] is not None:
        flag("no_new_suid", fields["no_new_suid"])
    for name in NAMES:
        result[name] = sequence(name, fields[name])
    for name in PARTS:
        if fields[name] != ():
            result[name] = _parts(name, fields[name])
    result["sysctls"] = mapping("sysctls", fields["sysctls"], _sysctls)
    result["add_hosts"] = mapping("add_hosts", fields["add_hosts"], _hosts)
    signal = fields["stop_signal"]
    if isinstance(signal, int) and not isinstance(signal, bool):
        result["stop_signal"] = str(int(signal))
    return result


def limits(value: object) -> Limits:
    """Converts a mapping of the fields of Limits to Limits."""
    if isinstance(value, Limits):
        return value
    if not isinstance(value, Mapping):
        raise SpecError("limits", value, f"must be Limits, or a mapping of their fields, not {type(value).__name__}")
    for name in value:
        if name not in NAMES_OF_LIMITS:
            raise SpecError("limits", name, "is no limit", " ".join(NAMES_OF_LIMITS))
    return Limits(**value) if value else NO_LIMITS


def _parts(name: str, value: object) -> tuple[Any, ...]:
    from minicontainer.spec.network import Port
    from minicontainer.spec.parts import Device, Mount, Ulimit

    kinds: dict[str, tuple[type, Callable[[str], Any]]] = {
        "mounts": (Mount, Mount.volume),
        "devices": (Device, Device.option),
        "ulimits": (Ulimit, Ulimit.option),
        "ports": (Port, Port.option),
    }
    kind, parse = kinds[name]
    parts: list[Any] = []
    for i, item in enumerate(sequence(name, value)):
        part: Any = item
        if isinstance(item, str) or (kind is Port and type(item) is int):
            with error_context(f"{name}[{i}]", str(item)):
                part = parse(str(item))
        parts += part if isinstance(part, tuple) and kind is Port else [part]
        if not isinstance(parts[-1], kind):
            reason = f"must be a {kind.__name__}, or a string as the command line takes it"
            raise SpecError(f"{name}[{i}]", item, f"{reason}, not {type(item).__name__}")
    return tuple(parts)


def _sysctls(items: Iterable[object]) -> dict[str, str]:
    sysctls = {}
    for item in items:
        key, equals, value = text("sysctls", item).partition("=")
        if not equals:
            raise SpecError("sysctls", item, "must be NAME=VALUE", "as in net.ipv4.ip_forward=1")
        sysctls[key] = value
    return sysctls


def _hosts(items: Iterable[str]) -> dict[str, str]:
    from minicontainer.spec.network import parse_add_host

    return parse_add_host(tuple(items))

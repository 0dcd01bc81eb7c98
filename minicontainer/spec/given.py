"""What a spec is given, as what it keeps: strings that the command line takes become parts, lists become tuples,
mappings dicts. Whatever else comes is a ``SpecError`` that names the field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from signal import Signals
from typing import TYPE_CHECKING, Any

from minicontainer.errors import SpecError
from minicontainer.spec.limits import NO_LIMITS, Limits
from minicontainer.spec.values import parse_env, said_of, text

if TYPE_CHECKING:
    from minicontainer.spec.container import Spec

FLAGS = ("ephemeral", "read_only", "init", "tty", "no_new_privileges", "privileged", "die_with_parent")
NAMES = ("group_add", "cap_add", "cap_drop", "dns")
PARTS = ("mounts", "devices", "ulimits", "ports")


def settle(spec: Spec) -> None:
    """Gives each field of ``spec`` the type that the rest of us relies on."""
    put = spec._put
    for name in FLAGS:
        flag(name, getattr(spec, name))
    if spec.no_new_suid is not None:
        flag("no_new_suid", spec.no_new_suid)
    for name in NAMES:
        put(name, sequence(name, getattr(spec, name)))
    for name in PARTS:
        if (value := getattr(spec, name)) != ():
            put(name, _parts(name, value))
    put("env", mapping("env", spec.env, parse_env))
    put("sysctls", mapping("sysctls", spec.sysctls, _sysctls))
    put("add_hosts", mapping("add_hosts", spec.add_hosts, _hosts))
    if spec.limits is not NO_LIMITS:
        put("limits", limits(spec.limits))
    if isinstance(spec.stop_signal, (int, Signals)) and not isinstance(spec.stop_signal, bool):
        put("stop_signal", str(int(spec.stop_signal)))


def flag(name: str, value: object) -> None:
    """SpecError where it is neither True nor False."""
    if not isinstance(value, bool):
        raise SpecError(name, value, f"must be True or False, not {type(value).__name__}")


def sequence(what: str, value: object) -> tuple[Any, ...]:
    """A list, tuple, or the like. One string is none: its letters are not meant."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise SpecError(what, value, f"must be a sequence, as a list, not {type(value).__name__}")
    return tuple(value)


def mapping(what: str, value: object, parse: Callable[[Any], dict[str, str]]) -> dict[str, Any]:
    """A mapping, or what ``parse`` makes one of: the strings of the command line."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise SpecError(what, value, f"must be a mapping, or a list of strings, not {type(value).__name__}")
    return parse(tuple(value))


def limits(value: object) -> Limits:
    """Limits, or a mapping of their fields."""
    if isinstance(value, Limits):
        return value
    if not isinstance(value, Mapping):
        raise SpecError("limits", value, f"must be Limits, or a mapping of their fields, not {type(value).__name__}")
    for name in value:
        if name not in Limits.__dataclass_fields__:
            raise SpecError("limits", name, "is no limit", " ".join(Limits.__dataclass_fields__))
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
    found: list[Any] = []
    for i, item in enumerate(sequence(name, value)):
        made: Any = item
        if isinstance(item, str) or (kind is Port and type(item) is int):
            with said_of(f"{name}[{i}]", str(item)):
                made = parse(str(item))
        found += made if isinstance(made, tuple) and kind is Port else [made]
        if not isinstance(found[-1], kind):
            reason = f"must be a {kind.__name__}, or a string as the command line takes it"
            raise SpecError(f"{name}[{i}]", item, f"{reason}, not {type(item).__name__}")
    return tuple(found)


def _sysctls(items: Iterable[object]) -> dict[str, str]:
    found = {}
    for item in items:
        key, equals, value = text("sysctls", item).partition("=")
        if not equals:
            raise SpecError("sysctls", item, "must be NAME=VALUE", "as in net.ipv4.ip_forward=1")
        found[key] = value
    return found


def _hosts(items: Iterable[str]) -> dict[str, str]:
    from minicontainer.spec.network import parse_add_host

    return parse_add_host(tuple(items))

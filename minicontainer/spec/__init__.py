"""A container as immutable data: ``Spec`` and its parts. No system calls; an invalid value is a ``SpecError``.

Strings are parsed as docker's command line does (``"64M"``, ``"src:dst:ro"``, ``"nofile=1024:2048"``), so that the
command line and the library accept the same values. Sizes are bytes, times seconds.
"""

from typing import TYPE_CHECKING, Any

from minicontainer.spec.container import Spec, make
from minicontainer.spec.limits import Limits
from minicontainer.spec.values import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    DEFAULT_ULIMITS,
    ID_MAX,
    NAME,
    OUTSIDE_MAX,
    RLIMITS,
    SECONDS_MAX,
    absolute,
    capability,
    check_timeout,
    check_user,
    cpu_list,
    decimal,
    parse_env,
    signal_number,
    size,
    text,
    whole,
)

if TYPE_CHECKING:
    from minicontainer.spec.network import Port
    from minicontainer.spec.parts import Device, DeviceRate, Mount, Ulimit

# Imported on first use: most specs have none of these parts.
PARTS = {"Device": "parts", "DeviceRate": "parts", "Mount": "parts", "Port": "network", "Ulimit": "parts"}

__all__ = [
    "CAPABILITIES",
    "DEFAULT_CAPABILITIES",
    "DEFAULT_ULIMITS",
    "Device",
    "DeviceRate",
    "ID_MAX",
    "OUTSIDE_MAX",
    "Limits",
    "Mount",
    "NAME",
    "Port",
    "RLIMITS",
    "SECONDS_MAX",
    "Spec",
    "Ulimit",
    "absolute",
    "capability",
    "check_user",
    "cpu_list",
    "decimal",
    "check_timeout",
    "make",
    "parse_env",
    "signal_number",
    "size",
    "text",
    "whole",
]


def __getattr__(name: str) -> Any:
    if name in PARTS:
        from importlib import import_module

        return getattr(import_module(f"minicontainer.spec.{PARTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

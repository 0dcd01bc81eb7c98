"""A container as immutable data: ``Spec`` and its parts. No system calls; an invalid value is a ``SpecError``.

Strings are parsed as docker's command line does (``"64M"``, ``"src:dst:ro"``, ``"nofile=1024:2048"``), so that the
command line and the library accept the same values. Sizes are bytes, times seconds.
"""

from __future__ import annotations

from minicontainer.spec.values import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    DEFAULT_ULIMITS,
    ID_MAX,
    NAME_PATTERN,
    OUTSIDE_MAX,
    RLIMITS,
    SECONDS_MAX,
    absolute,
    capability,
    check_timeout,
    check_user,
    cpu_list,
    decimal,
    is_name,
    parse_env,
    signal_number,
    size,
    text,
    whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.spec.container import Spec, make
    from minicontainer.spec.limits import Limits
    from minicontainer.spec.network import Port
    from minicontainer.spec.parts import Device, DeviceRate, Mount, Ulimit

# Imported on first use: a virtual machine needs the checks of values alone, and most specs have none of the parts.
HOME = {
    "Device": "parts", "DeviceRate": "parts", "Limits": "limits", "Mount": "parts", "Port": "network",
    "Spec": "container", "Ulimit": "parts", "make": "container",
}  # fmt: skip

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
    "NAME_PATTERN",
    "Port",
    "RLIMITS",
    "SECONDS_MAX",
    "Spec",
    "Ulimit",
    "absolute",
    "capability",
    "check_user",
    "cpu_list",
    "is_name",
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
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(f"{__name__}.{HOME[name]}", fromlist=[name]), name)
    globals()[name] = value
    return value

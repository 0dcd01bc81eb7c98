"""What is to run, as immutable data: ``Spec`` and its parts. No system calls; a mistake is a ``SpecError`` here.

Texts are taken as docker's command line takes them (``"64M"``, ``"src:dst:ro"``, ``"nofile=1024:2048"``), so that the
command line and a script say the same; sizes are bytes, times seconds.
"""

from minicontainer.spec.container import Spec, make
from minicontainer.spec.limits import DeviceRate, Limits
from minicontainer.spec.parts import Device, Mount, Ulimit
from minicontainer.spec.values import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    ID_MAX,
    NAME,
    RLIMITS,
    SECONDS_MAX,
    absolute,
    capability,
    check_user,
    cpu_list,
    decimal,
    parse_env,
    signal_number,
    size,
    text,
    whole,
)

__all__ = [
    "CAPABILITIES",
    "DEFAULT_CAPABILITIES",
    "Device",
    "DeviceRate",
    "ID_MAX",
    "Limits",
    "Mount",
    "NAME",
    "RLIMITS",
    "SECONDS_MAX",
    "Spec",
    "Ulimit",
    "absolute",
    "capability",
    "check_user",
    "cpu_list",
    "decimal",
    "make",
    "parse_env",
    "signal_number",
    "size",
    "text",
    "whole",
]

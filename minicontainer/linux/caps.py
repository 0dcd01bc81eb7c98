"""Capabilities (capabilities(7)): the five sets of a thread, as masks in which bit N is capability N."""

from __future__ import annotations

import struct

from minicontainer.native import lib, syscall
from minicontainer.plan.step import const
from minicontainer.spec import CAPABILITIES
from minicontainer.spec import capability as short_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple


class CapSets(NamedTuple):
    """The five sets of one thread."""

    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int

    def names(self) -> dict[str, list[str]]:
        """The names of the capabilities in each set."""
        return {field: names(value) for field, value in self._asdict().items()}


def capabilities(pid: int | str = "thread-self") -> CapSets:
    """The sets of a process (/proc/PID/status), by default of the calling thread."""
    sets = {}
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("Cap"):
                key, value = line.split(":")
                sets[key] = int(value, 16)
    return CapSets(*(sets[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")))


def number(capability: str) -> int:
    """The number of a capability: 12 for ``NET_ADMIN``, ``cap_net_admin`` or ``12``. ValueError if unknown."""
    if capability.isascii() and capability.isdigit() and int(capability) < 64:
        return int(capability)
    name = short_name("capability", capability)
    if name == "ALL":
        raise ValueError("capability ALL: names all capabilities, not one")
    return CAPABILITIES.index(name)


def names(mask: int) -> list[str]:
    """The names in a mask, such as ``["CHOWN", ...]``; an unknown bit 63 is ``"63"``."""
    named = dict(enumerate(CAPABILITIES))
    return [named.get(bit, str(bit)) for bit in range(64) if mask >> bit & 1]


def mask(names: Iterable[str]) -> int:
    """The mask of capability names; ValueError for an unknown one."""
    value = 0
    for name in names:
        value |= 1 << number(name)
    return value


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread."""
    header = struct.pack("=Ii", lib._LINUX_CAPABILITY_VERSION_3, 0)
    masks = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(w & 0xFFFFFFFF for w in masks), *(w >> 32 for w in masks))
    syscall("capset", lib.SYS_capset, header, data, what=tuple(f"{w:#x}" for w in masks))


def capbset_drop(capability: str) -> None:
    """prctl(PR_CAPBSET_DROP) of the calling thread."""
    option = const("PR_CAPBSET_DROP")
    syscall("prctl", lib.SYS_prctl, option, number(capability), 0, 0, 0, what=(option, capability))


def capbset_read(capability: str) -> bool:
    """prctl(PR_CAPBSET_READ) of the calling thread; OSError for a capability unknown to this kernel."""
    option = const("PR_CAPBSET_READ")
    return bool(syscall("prctl", lib.SYS_prctl, option, number(capability), 0, 0, 0, what=(option, capability)))


def cap_ambient(operation: str, capability: str = "") -> int:
    """prctl(PR_CAP_AMBIENT): ``RAISE``, ``LOWER``, ``IS_SET`` of one capability, or ``CLEAR_ALL``."""
    if (operation == "CLEAR_ALL") == bool(capability):
        raise ValueError(f"PR_CAP_AMBIENT_{operation}: CLEAR_ALL takes no capability, the others take one")
    option, wanted = const("PR_CAP_AMBIENT"), const(f"PR_CAP_AMBIENT_{operation}")
    bit = number(capability) if capability else 0
    what = (option, wanted, capability or bit)
    return syscall("prctl", lib.SYS_prctl, option, wanted, bit, 0, 0, what=what)


def has(capability: str) -> bool:
    """Whether the capability is effective in the calling thread (python-prctl; /proc for newer capabilities)."""
    import prctl

    bit = number(capability)
    effective = getattr(prctl.cap_effective, names(1 << bit)[0].lower(), None)
    return bool(capabilities().effective >> bit & 1) if effective is None else bool(effective)

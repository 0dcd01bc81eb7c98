"""Capabilities (capabilities(7)): the five sets of a thread, as masks in which bit N is capability N."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from minicontainer.native import lib, syscall
from minicontainer.spec import CAPABILITIES


class CapSets(NamedTuple):
    """The five sets of one thread."""

    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int


def capabilities(pid: int | str = "thread-self") -> CapSets:
    """The sets of a process (/proc/PID/status), by default of the calling thread."""
    found = {}
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("Cap"):
                key, value = line.split(":")
                found[key] = int(value, 16)
    return CapSets(*(found[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")))


def names(mask: int) -> list[str]:
    """``["CHOWN", ...]`` of a mask; numbers without a name here as ``"63"``."""
    known = dict(enumerate(CAPABILITIES))
    return [known.get(bit, str(bit)) for bit in range(64) if mask >> bit & 1]


def mask(names: Iterable[str]) -> int:
    """The mask of ``NET_ADMIN``, ``cap_net_admin`` ...; ValueError for a name that is none."""
    return sum(1 << CAPABILITIES.index(name.upper().removeprefix("CAP_")) for name in set(names))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread."""
    header = struct.pack("=Ii", lib._LINUX_CAPABILITY_VERSION_3, 0)
    words = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(w & 0xFFFFFFFF for w in words), *(w >> 32 for w in words))
    syscall("capset", lib.SYS_capset, header, data, what=tuple(f"{w:#x}" for w in words))


def capbset_drop(capability: str) -> None:
    """prctl(PR_CAPBSET_DROP) of the calling thread."""
    number = CAPABILITIES.index(capability.upper().removeprefix("CAP_"))
    syscall("prctl", lib.SYS_prctl, lib.PR_CAPBSET_DROP, number, 0, 0, 0, what=("PR_CAPBSET_DROP", capability))


def cap_ambient(operation: str, capability: str = "") -> int:
    """prctl(PR_CAP_AMBIENT): ``RAISE``, ``LOWER``, ``IS_SET`` of one capability, or ``CLEAR_ALL``."""
    number = CAPABILITIES.index(capability.upper().removeprefix("CAP_")) if capability else 0
    value = getattr(lib, f"PR_CAP_AMBIENT_{operation}")
    what = (f"PR_CAP_AMBIENT_{operation}", capability)
    return syscall("prctl", lib.SYS_prctl, lib.PR_CAP_AMBIENT, value, number, 0, 0, what=what)


def has(capability: str) -> bool:
    """Whether the calling thread has it in effect (through python-prctl)."""
    import prctl

    return bool(getattr(prctl.cap_effective, capability.lower().removeprefix("cap_")))

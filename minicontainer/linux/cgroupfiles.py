"""The formats of cgroup v2's interface files, as values: SI units, and None for ``max``. Pure.

cgroup-v2.rst "Format" and "Interface Files" of the kernel's documentation, accounting/psi.rst for pressure.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict


class Pressure(NamedTuple):
    """One line of a pressure file: the share of time stalled (percent over 10, 60, 300 s) and ``total`` seconds."""

    avg10: float
    avg60: float
    avg300: float
    total: float


class Usage(TypedDict):
    """Resource usage of a cgroup since its creation: seconds and bytes; None if this host does not account it.

    ``io_read`` and ``io_write`` sum over devices, so stacked devices (dm on a disk) count twice. ``pressure_*_some``
    is the time for which at least one task was stalled.
    """

    cputime: float | None
    cputime_user: float | None
    cputime_system: float | None
    memory_peak: int | None
    pids_peak: int | None
    io_read: int | None
    io_write: int | None
    pressure_cpu_some: float | None
    pressure_memory_some: float | None
    pressure_io_some: float | None


def parse_number(text: str) -> int | None:
    """A number, or None for ``max``."""
    return None if text.strip() == "max" else int(text)


def show_number(value: int | None) -> str:
    """``max`` for None."""
    return "max" if value is None else str(value)


def parse_cpu_max(text: str) -> tuple[int | None, int]:
    """``QUOTA PERIOD`` in microseconds."""
    quota, period = text.split()
    return parse_number(quota), int(period)


def show_cpu_max(value: tuple[int | None, int]) -> str:
    """``QUOTA PERIOD`` in microseconds."""
    return f"{show_number(value[0])} {value[1]}"


def parse_flat(text: str) -> dict[str, int]:
    """Flat keyed: ``KEY VALUE`` lines."""
    fields = text.split()
    return dict(zip(fields[::2], map(int, fields[1::2]), strict=True))


def parse_nested(text: str) -> dict[str, dict[str, int | None]]:
    """Nested keyed: ``KEY SUB=VALUE ...`` lines, as in io.max and io.stat."""
    parsed: dict[str, dict[str, int | None]] = {}
    for line in text.splitlines():
        key, *items = line.split()
        parsed[key] = {name: parse_number(value) for name, _, value in (item.partition("=") for item in items)}
    return parsed


def show_nested(value: dict[str, dict[str, int | None]]) -> str:
    """``MAJOR:MINOR rbps=N wiops=max`` lines."""
    return "\n".join(
        " ".join([device, *(f"{k}={show_number(v)}" for k, v in limits.items())]) for device, limits in value.items()
    )


def parse_pressure(text: str) -> dict[str, Pressure]:
    """Pressure files: ``some`` and, mostly, ``full``; ``total`` is microseconds there."""
    parsed = {}
    for line in text.splitlines():
        kind, *items = line.split()
        *averages, total = (float(item.partition("=")[2]) for item in items)
        parsed[kind] = Pressure(averages[0], averages[1], averages[2], total / 1e6)
    return parsed


def parse_default_weight(text: str) -> int:
    """``default N`` of io.weight; older kernels give the number alone."""
    return int(text.split("\n", 1)[0].removeprefix("default "))


# ---- for usage, from raw bytes; None (no file) gives None


def cpu_seconds(data: bytes | None) -> tuple[float | None, float | None, float | None]:
    """(total, user, system) seconds of cpu.stat."""
    if data is None:
        return None, None, None
    fields = data.split(None, 6)  # usage_usec, user_usec, system_usec come first (cgroup_base_stat_cputime_show)
    return int(fields[1]) / 1e6, int(fields[3]) / 1e6, int(fields[5]) / 1e6


def whole(data: bytes | None) -> int | None:
    """The number in a file that holds one number."""
    return None if data is None else int(data)


def io_bytes(data: bytes | None) -> tuple[int | None, int | None]:
    """(read, written) over all devices of io.stat."""
    if data is None:
        return None, None
    devices = parse_nested(data.decode()).values()
    return sum(d.get("rbytes") or 0 for d in devices), sum(d.get("wbytes") or 0 for d in devices)


def stalled(data: bytes | None) -> float | None:
    """Total stall seconds of the line ``some`` of a pressure file."""
    if data is None:
        return None
    start = data.index(b"total=") + 6  # the line "some" comes first
    return int(data[start : data.index(b"\n", start)]) / 1e6

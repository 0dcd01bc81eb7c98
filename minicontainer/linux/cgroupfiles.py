"""The formats of cgroup v2's interface files, as values: SI units, and None for ``max``. Pure.

cgroup-v2.rst "Format" and "Interface Files" of the kernel's documentation, accounting/psi.rst for pressure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple


class Pressure(NamedTuple):
    """One line of a pressure file: the share of time stalled (percent over 10, 60, 300 s) and ``total`` seconds."""

    avg10: float
    avg60: float
    avg300: float
    total: float


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

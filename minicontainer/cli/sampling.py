"""Repeated measurements of containers, as rows for ``stats`` and for the screen of ``top`` (screen.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minicontainer.cli.names import find
from minicontainer.cli.tables import bytes_text
from minicontainer.errors import Error

HEAD = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS", "BLOCK I/O", "PRESSURE cpu/mem/io %")
FIELDS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "PIDs", "BlockIO", "Pressure")
PAUSE = 1.0  # seconds between two measurements


class Sampler:
    """Measures containers; a rate refers to the time since the last measurement."""

    def __init__(self, names: Sequence[str]) -> None:
        self._chosen = [find(name) for name in names]
        self._before: dict[str, Any] = {}

    def sample(self) -> list[dict[str, Any]]:
        """A row for each running container."""
        from minicontainer.detached.container import containers

        rows, now = [], {}
        for container in self._chosen or containers():
            try:
                name, measured = container.name, container.stats()
            except (Error, OSError):
                continue  # not running
            now[container.id] = measured
            rows.append(_row(container.id, name, measured, self._before.get(container.id)))
        self._before = now
        return rows


def _row(identifier: str, name: str, now: Any, before: Any) -> dict[str, Any]:
    """docker's fields as numbers: bytes, and percent of one CPU or of the limit; None if unknown."""
    return {
        "ID": identifier,
        "Container": identifier,
        "Name": name or None,
        "CPUPerc": now.cpu_percent(before) if before is not None else None,
        "CPUTime": now.cputime,
        "MemUsage": now.memory,
        "MemLimit": now.memory_max,
        "MemPerc": 100 * now.memory / now.memory_max if now.memory is not None and now.memory_max else None,
        "PIDs": now.pids,
        "PIDsLimit": now.pids_max,
        "BlockRead": now.io_read,
        "BlockWrite": now.io_write,
        "PressureCPU": now.pressure_cpu,
        "PressureMemory": now.pressure_memory,
        "PressureIO": now.pressure_io,
    }


def text(row: dict[str, Any]) -> dict[str, str]:
    """The text of the fields that docker renders as strings, and pressure."""
    limit = bytes_text(row["MemLimit"]) if row["MemLimit"] is not None else "-"
    return {
        "ID": row["ID"][:12],
        "Container": row["ID"][:12],
        "Name": row["Name"] or "",
        "CPUPerc": _percent(row["CPUPerc"], sign="%"),
        "MemUsage": f"{bytes_text(row['MemUsage'])} / {limit}",
        "MemPerc": _percent(row["MemPerc"], sign="%"),
        "PIDs": str(row["PIDs"]),
        "BlockIO": f"{bytes_text(row['BlockRead'])} / {bytes_text(row['BlockWrite'])}",
        "Pressure": "/".join(_percent(row[f"Pressure{what}"], 0) for what in ("CPU", "Memory", "IO")),
    }


def cells(row: dict[str, Any]) -> list[str]:
    """The cells of a row of the table."""
    return [text(row)[field].rstrip("%") for field in FIELDS]


def _percent(value: float | None, digits: int = 2, sign: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}f}{sign}"

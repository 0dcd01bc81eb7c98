"""``minicontainer stats`` and ``top``: what containers use, and their processes; live on a screen at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.moments import shown
from minicontainer.cli.names import find
from minicontainer.cli.tables import bytes_text, printable, table
from minicontainer.errors import Error

HEAD = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS", "BLOCK I/O", "PRESSURE cpu/mem/io %")
FIELDS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "PIDs", "BlockIO", "Pressure")
HEADS = dict(zip(FIELDS, HEAD, strict=True))
TASKS = ("PID", "INSIDE", "UID", "STATE", "TIME", "RSS", "COMMAND")
TASK_HEADS = {"InnerPID": "INSIDE", "STAT": "STATE", "CMD": "COMMAND"}
PAUSE = 1.0  # seconds between two measurements


@click.command("stats", context_settings={"help_option_names": ["--help"]})
@click.option("--no-stream", is_flag=True, help="Measure once.")
@format_option()
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
def stats(no_stream: bool, format_: str, containers: Sequence[str]) -> int:
    """Show what CONTAINERs use (all that run, if none is named).

    At a terminal a screen that refreshes: arrows choose, c m p i n sort, s stops, k kills, e enters, q leaves.
    """
    if not no_stream and format_ == "table" and sys.stdin.isatty() and sys.stdout.isatty():
        from minicontainer.cli.screen import show

        return show(containers)
    sampler = Sampler(containers)
    sampler.sample()
    while True:
        time.sleep(PAUSE)
        rows = sampler.sample()
        whole = partial(table, HEAD, [cells(row) for row in rows])
        click.echo(rows_text([Row(row, _text(row)) for row in rows], format_, HEADS, whole), nl=False)
        if no_stream:
            return 0


class Sampler:
    """Measures again and again; a rate is since the last time."""

    def __init__(self, words: Sequence[str]) -> None:
        self._chosen = [find(word) for word in words]
        self._before: dict[str, Any] = {}

    def sample(self) -> list[dict[str, Any]]:
        """A row for each that runs."""
        from minicontainer.detached.container import containers

        rows, now = [], {}
        for container in self._chosen or containers():
            try:
                name, measured = container.name, container.stats()
            except (Error, OSError):
                continue  # it does not run, or no more
            now[container.id] = measured
            rows.append(_row(container.id, name, measured, self._before.get(container.id)))
        self._before = now
        return rows


def _row(identifier: str, name: str, now: Any, before: Any) -> dict[str, Any]:
    """docker's fields, as numbers: percent (of one CPU, of the limit) and bytes; None is unknown."""
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


def _text(row: dict[str, Any]) -> dict[str, str]:
    """What docker packs into a string, and pressure."""
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
    return [_text(row)[field].rstrip("%") for field in FIELDS]


def _percent(value: float | None, digits: int = 2, sign: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}f}{sign}"


@click.command("top", context_settings={"help_option_names": ["--help"]})
@format_option()
@click.argument("containers", nargs=-1, metavar="[CONTAINER]")
def top(format_: str, containers: Sequence[str]) -> int:
    """Show the processes of CONTAINER; without one, all that run, on a screen that refreshes (as stats)."""
    if not containers:
        from minicontainer.cli.screen import show

        return show(())
    for word in containers:
        found = find(word).tasks()
        whole = partial(table, TASKS, [_task_cells(task) for task in found], ("COMMAND",))
        click.echo(rows_text([_task(task) for task in found], format_, TASK_HEADS, whole), nl=False)
    return 0


def _task(task: Any) -> Row:
    """docker's titles (of ps(1)) where there are such; ``InnerPID`` as the container counts."""
    _, _, _, _, clock, rss, command = _task_cells(task)
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    data = {
        "PID": task.pid,
        "InnerPID": task.inner,
        "PPID": task.ppid,
        "UID": task.uid,
        "STAT": task.state,
        "STIME": shown(boot + task.started),
        "TIME": task.cputime,
        "RSS": task.rss,
        "CMD": task.command,
    }
    return Row(data, {"TIME": clock, "RSS": rss, "CMD": command})


def _task_cells(task: Any) -> tuple[str, ...]:
    minutes, seconds = divmod(int(task.cputime), 60)
    clock = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
    numbers = (str(task.pid), str(task.inner), str(task.uid))
    return (*numbers, task.state, clock, bytes_text(task.rss), printable(task.command))

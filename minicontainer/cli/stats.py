"""``minicontainer stats`` and ``top``: what containers use, and their processes; live on a screen at a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from minicontainer.cli.names import find
from minicontainer.cli.tables import bytes_text, printable, table
from minicontainer.errors import Error

HEAD = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS", "BLOCK I/O", "PRESSURE cpu/mem/io %")
TASKS = ("PID", "INSIDE", "UID", "STATE", "TIME", "RSS", "COMMAND")
PAUSE = 1.0  # seconds between two measurements


@click.command("stats", context_settings={"help_option_names": ["--help"]})
@click.option("--no-stream", is_flag=True, help="Measure once.")
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), help="json: a line each.")
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
        if format_ == "json":
            click.echo("".join(f"{json.dumps(row)}\n" for row in rows), nl=False)
        else:
            click.echo(table(HEAD, [as_text(row) for row in rows]))
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
    share = 100 * now.memory / now.memory_max if now.memory is not None and now.memory_max else None
    values = {key: value for key, value in now._asdict().items() if key != "time"}
    percent = now.cpu_percent(before) if before is not None else None
    return {"id": identifier, "name": name, "cpu_percent": percent, "memory_percent": share, **values}


def as_text(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a row."""
    limit = bytes_text(row["memory_max"]) if row["memory_max"] is not None else "-"
    pressure = "/".join(_percent(row[f"pressure_{what}"], 0) for what in ("cpu", "memory", "io"))
    return (
        row["id"][:12],
        row["name"],
        _percent(row["cpu_percent"]),
        f"{bytes_text(row['memory'])} / {limit}",
        _percent(row["memory_percent"]),
        str(row["pids"]),
        f"{bytes_text(row['io_read'])} / {bytes_text(row['io_write'])}",
        pressure,
    )


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


@click.command("top", context_settings={"help_option_names": ["--help"]})
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), help="json: a line each.")
@click.argument("containers", nargs=-1, metavar="[CONTAINER]")
def top(format_: str, containers: Sequence[str]) -> int:
    """Show the processes of CONTAINER; without one, all that run, on a screen that refreshes (as stats)."""
    if not containers:
        from minicontainer.cli.screen import show

        return show(())
    for word in containers:
        found = find(word).tasks()
        if format_ == "json":
            click.echo("".join(f"{json.dumps(task._asdict())}\n" for task in found), nl=False)
        else:
            click.echo(table(TASKS, [_task_text(task) for task in found], ("COMMAND",)))
    return 0


def _task_text(task: Any) -> tuple[str, ...]:
    minutes, seconds = divmod(int(task.cputime), 60)
    clock = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
    numbers = (str(task.pid), str(task.inner), str(task.uid))
    return (*numbers, task.state, clock, bytes_text(task.rss), printable(task.command))

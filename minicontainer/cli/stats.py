"""``minicontainer stats`` and ``top``: the resource usage and the processes of containers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from minicontainer.cli.command import Command
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.names import find
from minicontainer.cli.sampling import FIELDS, HEAD, PAUSE, Sampler, cells, text
from minicontainer.cli.tables import bytes_text, printable, table
from minicontainer.cli.times import format_time

HEADINGS = dict(zip(FIELDS, HEAD, strict=True))
TASKS = ("PID", "INSIDE", "UID", "STATE", "TIME", "RSS", "COMMAND")
TASK_HEADINGS = {"InnerPID": "INSIDE", "STAT": "STATE", "CMD": "COMMAND"}


@click.command("stats", cls=Command)
@click.option("--no-stream", is_flag=True, help="Print one measurement and exit.")
@format_option()
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
def stats(no_stream: bool, format_: str, containers: Sequence[str]) -> int:
    """Show the resource usage of CONTAINERs (default: of all running containers), every second.

    At a terminal this is a full screen. Keys: arrows select, c m p i n sort, s stop, k kill, e run a shell, q quit.
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
        click.echo(rows_text([Row(row, text(row)) for row in rows], format_, HEADINGS, whole), nl=False)
        if no_stream:
            return 0


@click.command("top", cls=Command)
@format_option()
@click.argument("containers", nargs=-1, metavar="[CONTAINER]")
def top(format_: str, containers: Sequence[str]) -> int:
    """Show the processes of CONTAINER; without CONTAINER, the usage of all containers on a screen (as stats)."""
    if not containers:
        from minicontainer.cli.screen import show

        return show(())
    for name in containers:
        tasks = find(name).tasks()
        whole = partial(table, TASKS, [_task_cells(task) for task in tasks], ("COMMAND",))
        click.echo(rows_text([_task(task) for task in tasks], format_, TASK_HEADINGS, whole), nl=False)
    return 0


def _task(task: Any) -> Row:
    """Field names of ps(1), as in docker; ``InnerPID`` is the pid inside the container."""
    _, _, _, _, clock, rss, command = _task_cells(task)
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    data = {
        "PID": task.pid,
        "InnerPID": task.inner,
        "PPID": task.ppid,
        "UID": task.uid,
        "STAT": task.state,
        "STIME": format_time(boot + task.started),
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

"""``minicontainer logs``: the output of a container; stdout and stderr are separate."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from minicontainer import spec as s
from minicontainer.cli.command import Command
from minicontainer.cli.names import container_argument, find
from minicontainer.cli.times import parse_time, rfc3339


@click.command("logs", cls=Command)
@click.option("-f", "--follow", is_flag=True, help="Follow the output until the container ends.")
@click.option("--since", help="Only lines since then: 1h30m (ago), 2026-11-23T16:00:00Z, or seconds since 1970.")
@click.option("--until", help="Only lines until then (as --since).")
@click.option("-n", "--tail", default="all", show_default=True, help="Number of last lines to show; all or -1: all.")
@click.option("-t", "--timestamps", is_flag=True, help="Show the time before each line.")
@click.option(
    "--format", "format_", default="text", type=click.Choice(["text", "json"]), help="json: one JSON object per line."
)
@container_argument()
def command(
    *, follow: bool, since: str | None, until: str | None, tail: str, timestamps: bool, format_: str, container: str
) -> int:
    """Show the output of CONTAINER: its stdout on stdout, its stderr on stderr."""
    lines = -1 if tail == "all" else s.whole("tail", tail, -1, 10**9, "of lines")
    start, end = (
        None if text is None else parse_time(what, text) for what, text in (("since", since), ("until", until))
    )
    show = _as_json if format_ == "json" else Text(timestamps)
    for entry in find(container).logs(follow=follow, since=start, until=end, tail=None if lines < 0 else lines):
        show(entry)
    return 0


class Text:
    """Prints the output unchanged, or with the time before each line."""

    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._within: set[str] = set()  # streams whose last line is incomplete

    def __call__(self, entry: Any) -> None:
        if entry.stream == "lost":
            print(f"minicontainer: log: {_lost(entry)}", file=sys.stderr, flush=True)
            return
        out = sys.stdout.buffer if entry.stream == "stdout" else sys.stderr.buffer
        if self._timestamps and entry.stream not in self._within:
            out.write(f"{rfc3339(entry.time_ns)} ".encode())
        out.write(entry.data)
        out.flush()
        (self._within.discard if entry.data.endswith(b"\n") else self._within.add)(entry.stream)


def _lost(entry: Any) -> str:
    import os

    size, _, number = entry.data.decode().strip().partition(" bytes: errno ")
    return f"{size} bytes of output could not be written: {os.strerror(int(number)).lower()}"


def _as_json(entry: Any) -> None:
    text = entry.data.decode("utf-8", "replace")
    click.echo(json.dumps({"time": rfc3339(entry.time_ns), "stream": entry.stream, "log": text}))

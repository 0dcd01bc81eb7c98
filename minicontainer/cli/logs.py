"""``minicontainer logs``: what a container wrote, each stream to its own."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime, timezone
from typing import Any

import click

from minicontainer import spec as s
from minicontainer.cli.names import container_argument, find
from minicontainer.errors import SpecError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command("logs", context_settings={"help_option_names": ["--help"]})
@click.option("-f", "--follow", is_flag=True, help="Go on with what it writes, to its end.")
@click.option("--since", help="From then on: 10m (ago), 2026-11-23T16:00:00Z, or seconds since 1970.")
@click.option("-n", "--tail", default="all", show_default=True, help="The last lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Before each line, when it was written.")
@click.option("--format", "format_", default="text", type=click.Choice(["text", "json"]), help="json: a line each.")
@container_argument()
def command(*, follow: bool, since: str | None, tail: str, timestamps: bool, format_: str, container: str) -> int:
    """Show what CONTAINER wrote: its stdout on stdout, its stderr on stderr."""
    lines = None if tail == "all" else s.whole("tail", tail, 0, 10**9, "of lines")
    start = None if since is None else moment(since)
    show = _as_json if format_ == "json" else Text(timestamps)
    for entry in find(container).logs(follow=follow, since=start, tail=lines):
        show(entry)
    return 0


def moment(text: str) -> float:
    """Seconds since 1970 of a time, or of a span that lies back."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return time.time() - float(match[1]) * UNITS[match[2]]
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        when = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00"))
    except ValueError:
        raise SpecError(
            "since", text, "is no time", "such as 10m, 2026-11-23T16:00:00Z, or seconds since 1970"
        ) from None
    return when.timestamp()


class Text:
    """As it was written; with the time of each line before it."""

    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._within: set[str] = set()  # streams whose last line goes on

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


def rfc3339(time_ns: int) -> str:
    """``2026-11-23T16:51:08.123456789Z``."""
    seconds = datetime.fromtimestamp(time_ns // 10**9, timezone.utc)
    return f"{seconds:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9:09d}Z"

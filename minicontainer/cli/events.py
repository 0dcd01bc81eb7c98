"""``minicontainer events``: the events of containers, networks and volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from minicontainer.cli import filters as f
from minicontainer.cli.command import Command
from minicontainer.cli.formats import Row, Template, format_option
from minicontainer.cli.times import parse_time, rfc3339

KINDS = ("container", "network", "volume")


def _is(kind: str) -> Callable[[str], f.Test]:
    """Matches events of this kind by name, or by the beginning of the id."""
    return lambda value: lambda e: e.kind == kind and (e.attributes.get("name") == value or e.id.startswith(value))


FILTERS: dict[str, Callable[[str], f.Test]] = {
    **{kind: _is(kind) for kind in KINDS},
    "event": f.equal(lambda event: (event.action,)),
    "type": f.one_of("type", KINDS, lambda event: event.kind),
}


@click.command("events", cls=Command)
@click.option(
    "--since", help="Start with recorded events since then: 1h30m (ago), 2026-11-23T16:00:00Z, seconds since 1970."
)
@click.option("--until", help="Stop at this time (as --since). [default: never]")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help=f"Show matching events only; KEY: {', '.join(FILTERS)}.",
)
@format_option("text")
def command(since: str | None, until: str | None, filters: Sequence[str], format_: str) -> int:
    """Show the events of containers, networks and volumes as they happen, one per line.

    Containers: create, start, kill, stop, die, oom, restart, pause, unpause, rename, update, destroy. Networks and
    volumes: create, destroy.
    """
    from minicontainer import events

    chosen = f.Filters(filters, FILTERS)
    template = Template("{{json .}}" if format_ == "json" else format_) if format_ != "text" else None
    start, end = (
        None if text is None else parse_time(what, text) for what, text in (("since", since), ("until", until))
    )
    for event in events.events(since=start, until=end):
        if chosen.fit(event):
            click.echo(_line(event) if template is None else template.render(Row(_data(event))))
    return 0


def _line(event: Any) -> str:
    """A line as docker prints it."""
    attributes = ", ".join(f"{key}={value}" for key, value in event.attributes.items())
    line = f"{rfc3339(event.time_ns)} {event.kind} {event.action} {event.id}"
    return f"{line} ({attributes})" if attributes else line


def _data(event: Any) -> dict[str, Any]:
    """The fields of docker's JSON."""
    return {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": rfc3339(event.time_ns),
        "timeNano": event.time_ns,
    }

"""``minicontainer inspect``: the details of containers, as JSON or by a template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from minicontainer.cli.command import Command
from minicontainer.cli.formats import format_option, list_text
from minicontainer.cli.names import containers_argument, find
from minicontainer.errors import Error


@click.command("inspect", cls=Command)
@format_option("json", short=True)
@containers_argument()
def command(format_: str, containers: Sequence[str]) -> int:
    """Show the details of containers as a JSON list with docker's field names, or with -f by a template."""
    from minicontainer.cli.inspection import as_data

    return inspect_each(containers, lambda name: as_data(find(name)), format_)


def inspect_each(names: Sequence[str], look: Callable[[str], dict[str, Any]], format_: str) -> int:
    """Print the details of each name; report each error, with exit code 1, as docker does. ``look`` returns the
    details."""
    from minicontainer.cli import report

    entries, status = [], 0
    for name in names:
        try:
            entries.append(look(name))
        except Error as e:
            report(e)
            status = 1
    click.echo(list_text(entries, format_), nl=False)
    return status

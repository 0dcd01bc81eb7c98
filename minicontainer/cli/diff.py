"""``minicontainer diff``: the paths that an ephemeral container has added, changed and deleted."""

from __future__ import annotations

import click

from minicontainer.cli.command import Command
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.names import container_argument, find
from minicontainer.cli.tables import printable


@click.command("diff", cls=Command)
@format_option()
@container_argument()
def command(container: str, format_: str) -> int:
    """Show the paths that an ephemeral container has added (A), changed (C) and deleted (D), one per line."""
    changes = find(container).changes()
    rows = [Row({"Kind": change.kind, "Path": change.path}) for change in changes]
    lines = [f"{change.kind} {printable(change.path)}" for change in changes]
    if rows or format_ != "table":
        click.echo(rows_text(rows, format_, {}, lambda: "\n".join(lines)), nl=False)
    return 0

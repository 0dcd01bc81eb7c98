"""``minicontainer diff``: what an ephemeral container has added, changed and deleted."""

from __future__ import annotations

import json

import click

from minicontainer.cli.names import container_argument, find
from minicontainer.cli.tables import printable


@click.command("diff", context_settings={"help_option_names": ["--help"]})
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), help="json: a line each.")
@container_argument()
def command(container: str, format_: str) -> int:
    """Show what an ephemeral container has added (A), changed (C) and deleted (D), a path a line."""
    found = find(container).changes()
    if format_ == "json":
        lines = [json.dumps(change._asdict()) for change in found]
    else:
        lines = [f"{change.kind} {printable(change.path)}" for change in found]
    click.echo("".join(f"{line}\n" for line in lines), nl=False)
    return 0

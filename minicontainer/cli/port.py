"""``minicontainer port``: where a container waits for others."""

from __future__ import annotations

import json
from typing import Any

import click

from minicontainer.cli.names import container_argument, find


@click.command("port", context_settings={"help_option_names": ["--help"]})
@click.option("--format", "format_", default="text", type=click.Choice(["text", "json"]), help="json: a line each.")
@container_argument()
def command(format_: str, container: str) -> int:
    """Show the ports on which CONTAINER listens: PORT/PROTOCOL, and where it is reached from this host.

    With a network of its own (--network none) that is from inside alone.
    """
    found = find(container)
    network = found.config.spec.network
    for port in found.ports():
        shown: dict[str, Any] = {
            **port._asdict(),
            "host": f"{port.address}:{port.number}" if network == "host" else None,
        }
        if format_ == "json":
            click.echo(json.dumps(shown))
        else:
            where = f" -> {shown['host']}" if shown["host"] else f" on {port.address}, inside alone"
            click.echo(f"{port.number}/{port.protocol}{where}")
    return 0

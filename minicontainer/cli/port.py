"""``minicontainer port``: where a container waits for others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import click

from minicontainer.cli.names import container_argument, find
from minicontainer.errors import Error


@click.command("port", context_settings={"help_option_names": ["--help"]})
@click.option("--format", "format_", default="text", type=click.Choice(["text", "json"]), help="json: a line each.")
@container_argument()
def command(format_: str, container: str) -> int:
    """Show the ports of CONTAINER: PORT/PROTOCOL, and where it is reached from this host.

    Those that are published come first, then the others on which it listens.
    """
    for row in _rows(find(container)):
        if format_ == "json":
            click.echo(json.dumps(row))
        else:
            where = f" -> {row['host']}" if row["host"] else f" on {row['address']}, inside alone"
            click.echo(f"{row['number']}/{row['protocol']}{where}")
    return 0


def _rows(found: Any) -> Iterator[dict[str, Any]]:
    lease = found.lease()
    published = lease.ports if lease is not None else found.config.spec.ports if os.geteuid() != 0 else ()
    for port in published:
        host = f"{port.address or '0.0.0.0'}:{port.host}"
        yield {"number": port.number, "protocol": port.protocol, "address": "0.0.0.0", "host": host}
    known = {(port.number, port.protocol) for port in published}
    for port in _listening(found, alone=not published):
        if (port.number, port.protocol) not in known:
            yield {**port._asdict(), "host": _reached(found, lease, port)}


def _listening(found: Any, *, alone: bool) -> list[Any]:
    """Its sockets; where these cannot be known, what is published has to do, unless it would be ``alone``."""
    try:
        return list(found.ports())
    except Error:
        if alone:
            raise
        return []


def _reached(found: Any, lease: Any, port: Any) -> str | None:
    """Where the host reaches a port that is not published; None: nowhere."""
    if found.config.spec.network == "host":
        return f"{port.address}:{port.number}"
    if lease is None or port.address.startswith(("127.", "::1", "[::1")):
        return None
    return f"{lease.address}:{port.number}"

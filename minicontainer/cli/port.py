"""``minicontainer port``: the published and listening ports of a container."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from minicontainer import spec as s
from minicontainer.cli.command import Command
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.names import container_argument, find
from minicontainer.errors import Error, SpecError


@click.command("port", cls=Command)
@format_option()
@container_argument()
@click.argument("port", metavar="[PORT[/udp]]", required=False)
def command(format_: str, container: str, port: str | None) -> int:
    """Show the ports of CONTAINER: PORT/PROTOCOL, and the address and port on which the host reaches it.

    Published ports come first, then other ports on which the container listens. With PORT: the addresses and ports of
    the host at which PORT is published, one per line; an error if it is not published.
    """
    wanted = None if port is None else _wanted(port)
    target = find(container)
    if wanted is not None:
        rows = [row for row in _published(target) if (row["PrivatePort"], row["Type"]) == wanted]
        if not rows:
            inside = f"port {wanted[0]}/{wanted[1]}"
            raise Error(f"{inside} of container {container}: is not published (run -p {port} publishes it)")
        click.echo(rows_text([Row(row) for row in rows], format_, {}, lambda: "\n".join(map(_host, rows))), nl=False)
        return 0
    rows = list(_rows(target))
    if rows or format_ != "table":
        click.echo(rows_text([Row(row) for row in rows], format_, {}, lambda: "\n".join(map(_line, rows))), nl=False)
    return 0


def _wanted(text: str) -> tuple[int, str]:
    """The number and the protocol of ``80`` or ``53/udp``."""
    try:
        (port,) = s.Port.exposed(text)
    except (SpecError, ValueError):
        raise SpecError("PORT", text, "must be PORT[/udp]", "such as 80 or 53/udp") from None
    return port.number, port.protocol


def _host(row: dict[str, Any]) -> str:
    """Address and port on the host, as text."""
    return f"[{row['HostIp']}]:{row['HostPort']}" if ":" in row["HostIp"] else f"{row['HostIp']}:{row['HostPort']}"


def _line(row: dict[str, Any]) -> str:
    where = f" on {row['Address']}, not reachable from the host" if row["HostIp"] is None else f" -> {_host(row)}"
    return f"{row['PrivatePort']}/{row['Type']}{where}"


def _published(target: Any) -> Iterator[dict[str, Any]]:
    for port in target.published():
        inside = "::" if ":" in port.address else "0.0.0.0"
        yield _row(port.number, port.protocol, inside, (port.address or "0.0.0.0", port.host))


def _rows(target: Any) -> Iterator[dict[str, Any]]:
    lease, published = target.lease(), target.published()
    yield from _published(target)
    known = {(port.number, port.protocol) for port in published}
    for port in _listening(target, alone=not published):
        if (port.number, port.protocol) not in known:
            yield _row(port.number, port.protocol, port.address, _reached(target, lease, port))


def _row(number: int, protocol: str, address: str, host: tuple[str, int] | None) -> dict[str, Any]:
    """docker's fields of a port; ``host`` is None if the host cannot reach it."""
    at, port = host or (None, None)
    return {"PrivatePort": number, "Type": protocol, "Address": address, "HostIp": at, "HostPort": port}


def _listening(target: Any, *, alone: bool) -> list[Any]:
    """The container's listening sockets. If they cannot be read: [], or an error with ``alone`` (nothing is
    published)."""
    try:
        return list(target.ports())
    except Error:
        if alone:
            raise
        return []


def _reached(target: Any, lease: Any, port: Any) -> tuple[str, int] | None:
    """The address and port on which the host reaches an unpublished port; None: not reachable."""
    if target.config.spec.network == "host":
        return port.address, port.number
    if lease is None or port.address.startswith(("127.", "::1", "[::1")):
        return None
    return str(lease.address), port.number

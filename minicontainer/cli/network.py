"""``minicontainer network``: networks for containers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from minicontainer.cli.tables import table
from minicontainer.errors import Error

HEAD = ("NAME", "SUBNET", "GATEWAY", "INTERFACE", "MEMBERS")
HELP = {"help_option_names": ["--help"]}


class NetworkName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A network's name, completed by the shell."""

    name = "network"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from minicontainer.network import store

        return [CompletionItem(name) for name in store.names() if name.startswith(incomplete)]


names_argument = click.argument("names", type=NetworkName(), nargs=-1, required=True, metavar="NETWORK...")


@click.group("network", context_settings=HELP)
def group() -> None:
    """Make, list and remove networks; run --network NETWORK joins one.

    The network "bridge" is made when it is needed. A network lasts until the host is shut down.
    """


@group.command("create", context_settings=HELP)
@click.option("--subnet", help="Its IPv4 addresses, such as 10.5.0.0/24. [default: a free one]")
@click.option("--gateway", help="The host's address in it. [default: the first]")
@click.option("--internal", is_flag=True, help="No way leads out of it.")
@click.option("--ipv6/--no-ipv6", default=None, help="Addresses of IPv6 too. [default: where the host has it]")
@click.argument("name")
def create(subnet: str | None, gateway: str | None, internal: bool, ipv6: bool | None, name: str) -> int:
    """Make the network NAME."""
    from minicontainer.network import networks

    networks.create(name, subnet=subnet, gateway=gateway, internal=internal, ipv6=ipv6)
    click.echo(name)
    return 0


@group.command("ls", context_settings=HELP)
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), help="json: a line each.")
def ls(quiet: bool, format_: str) -> int:
    """List the networks."""
    from minicontainer.network import members, networks, store

    if quiet:
        click.echo("".join(f"{name}\n" for name in store.names()), nl=False)
    elif format_ == "json":
        for network in store.whole():
            click.echo(json.dumps(networks.inspect(network.name)))
    else:
        rows = [
            (
                n.name,
                f"{n.subnet}{' (internal)' * n.internal}",
                str(n.gateway),
                n.interface,
                str(len(members.of(n.name))),
            )
            for n in store.whole()
        ]
        click.echo(table(HEAD, rows))
    return 0


@group.command("rm", context_settings=HELP)
@names_argument
def rm(names: Sequence[str]) -> int:
    """Remove networks that nobody is on."""
    from minicontainer.cli import report
    from minicontainer.network import networks

    status = 0
    for name in names:
        try:
            networks.remove(name)
            click.echo(name)
        except (Error, OSError) as e:
            report(e)
            status = 1
    return status


@group.command("inspect", context_settings=HELP)
@names_argument
def inspect(names: Sequence[str]) -> int:
    """Show all that is known of networks, and who is on them, as a JSON list."""
    from minicontainer.cli import report
    from minicontainer.network import networks

    found, status = [], 0
    for name in names:
        try:
            found.append(networks.inspect(name))
        except Error as e:
            report(e)
            status = 1
    click.echo(json.dumps(found, indent=2))
    return status

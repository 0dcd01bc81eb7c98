"""``minicontainer network``: networks for containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from minicontainer.cli import filters as f
from minicontainer.cli.formats import Row, format_option, rows_text
from minicontainer.cli.groups import Group
from minicontainer.cli.moments import shown
from minicontainer.cli.tables import table
from minicontainer.errors import Error

HEAD = ("NAME", "SUBNET", "GATEWAY", "INTERFACE", "MEMBERS")
HEADS = {"ID": "NETWORK ID"}


class NetworkName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A network's name, completed by the shell."""

    name = "network"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from minicontainer.network import store

        return [CompletionItem(name) for name in store.names() if name.startswith(incomplete)]


names_argument = click.argument("names", type=NetworkName(), nargs=-1, required=True, metavar="NETWORK...")


@click.group("network", cls=Group)
def group() -> None:
    """Make, list and remove networks; run --network NETWORK joins one.

    The network "bridge" is made when it is needed. A network lasts until the host is shut down.
    """


@group.command("create")
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


FILTERS: dict[str, Callable[[str], f.Test]] = {
    "name": f.matches("name", lambda n: n.name),
    "id": f.matches("id", lambda n: n.name),
    "driver": f.one_of("driver", ("bridge",), lambda n: "bridge"),
}


@group.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"Of {', '.join(FILTERS)}.")
@format_option()
def ls(quiet: bool, filters: Sequence[str], format_: str) -> int:
    """List the networks."""
    from minicontainer.network import store

    chosen = f.Filters(filters, FILTERS)
    found = [network for network in store.whole() if chosen.fit(network)]
    if quiet:
        click.echo("".join(f"{network.name}\n" for network in found), nl=False)
        return 0
    rows = [Row(_listed(network)) for network in found]
    click.echo(rows_text(rows, format_, HEADS, lambda: table(HEAD, [_cells(network) for network in found])), nl=False)
    return 0


def _cells(network: Any) -> list[str]:
    from minicontainer.network import members

    subnet = f"{network.subnet}{' (internal)' * network.internal}"
    return [network.name, subnet, str(network.gateway), network.interface, str(len(members.of(network.name)))]


def _listed(network: Any) -> dict[str, Any]:
    """docker's fields; a network has no id but its name."""
    return {
        "ID": network.name,
        "Name": network.name,
        "Driver": "bridge",
        "Scope": "local",
        "CreatedAt": shown(network.created),
        "IPv6": network.subnet6 is not None,
        "Internal": network.internal,
        "Labels": {},
        "Subnet": str(network.subnet),
        "Gateway": str(network.gateway),
        "Interface": network.interface,
    }


@group.command("rm")
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


@group.command("inspect")
@format_option("json", short=True)
@names_argument
def inspect(format_: str, names: Sequence[str]) -> int:
    """Show all that is known of networks, and who is on them, as a JSON list; with -f as a template says."""
    from minicontainer.cli.inspect import inspect_each
    from minicontainer.network import store

    return inspect_each(names, lambda name: _inspected(store.read(name)), format_)


def _inspected(network: Any) -> dict[str, Any]:
    """docker's shape. Containers are by their short id."""
    from minicontainer.network import members

    ways = [(network.subnet, network.gateway), (network.subnet6, network.gateway6)]
    return {
        "Name": network.name,
        "Id": network.name,
        "Created": shown(network.created),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": network.subnet6 is not None,
        "IPAM": {"Config": [{"Subnet": str(net), "Gateway": str(way)} for net, way in ways if net is not None]},
        "Internal": network.internal,
        "Containers": {lease.owner: _member(network, lease) for lease in members.of(network.name)},
        "Options": {"com.docker.network.bridge.name": network.interface},
        "Labels": {},
    }


def _member(network: Any, lease: Any) -> dict[str, Any]:
    six = network.address6(lease.address)
    return {
        "Name": lease.names.split()[0],
        "IPv4Address": f"{lease.address}/{network.subnet.prefixlen}",
        "IPv6Address": None if six is None else f"{six}/{network.subnet6.prefixlen}",
        "DNSNames": lease.names.split(),
        "Ports": [str(port) for port in lease.ports],
    }

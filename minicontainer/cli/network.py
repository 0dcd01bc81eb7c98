"""``minicontainer network``: networks for containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from minicontainer.cli import filters as f
from minicontainer.cli.command import confirm
from minicontainer.cli.formats import Row, format_option
from minicontainer.cli.groups import Group
from minicontainer.cli.named import Listing, Name, each_name
from minicontainer.cli.times import format_time


def _names() -> list[str]:
    from minicontainer.network import store

    return list(store.names())


NETWORK = Name("network", _names)


@click.group("network", cls=Group)
def group() -> None:
    """Create, list and remove networks; run --network NETWORK joins one.

    The network "bridge" is created at its first use. A network lasts until the host is shut down.
    """


@group.command("create")
@click.option("--subnet", help="IPv4 subnet, such as 10.5.0.0/24. [default: a free one]")
@click.option("--gateway", help="IPv4 address of the host in the subnet. [default: the first]")
@click.option("--internal", is_flag=True, help="Without a route out of the network.")
@click.option("--ipv6/--no-ipv6", default=None, help="With IPv6 addresses too. [default: if the host has IPv6]")
@click.argument("name")
def create(subnet: str | None, gateway: str | None, internal: bool, ipv6: bool | None, name: str) -> int:
    """Create the network NAME."""
    from minicontainer.network import networks

    networks.create(name, subnet=subnet, gateway=gateway, internal=internal, ipv6=ipv6)
    click.echo(name)
    return 0


def _row(network: Any) -> Row:
    """docker's fields and more; the id of a network is its name."""
    from minicontainer.network import members

    data = {
        "ID": network.name,
        "Name": network.name,
        "Driver": "bridge",
        "Scope": "local",
        "CreatedAt": format_time(network.created),
        "IPv6": network.subnet6 is not None,
        "Internal": network.internal,
        "Labels": {},
        "Subnet": str(network.subnet),
        "Gateway": str(network.gateway),
        "Interface": network.interface,
        "Members": len(members.of(network.name)),
    }
    return Row(data)


def _cells(network: Any, data: Mapping[str, Any]) -> list[str]:
    subnet = f"{network.subnet}{' (internal)' * network.internal}"
    return [network.name, subnet, data["Gateway"], network.interface, str(data["Members"])]


LISTING = Listing(
    filters={
        "name": f.matches("name", lambda network: network.name),
        "id": f.matches("id", lambda network: network.name),
        "driver": f.one_of("driver", ("bridge",), lambda network: "bridge"),
    },
    headings={"ID": "NETWORK ID"},
    head=("NAME", "SUBNET", "GATEWAY", "INTERFACE", "MEMBERS"),
    row=_row,
    cells=_cells,
)


@group.command("ls")
@LISTING.options
def ls(quiet: bool, filters: Sequence[str], format_: str) -> int:
    """List the networks."""
    from minicontainer.network import store

    return LISTING.show(store.readable(), quiet=quiet, filters=filters, format_=format_)


@group.command("rm")
@NETWORK.argument()
def rm(names: Sequence[str]) -> int:
    """Remove networks that no container uses."""
    from minicontainer.network import networks

    return each_name(names, networks.remove)


@group.command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
def prune(force: bool) -> int:
    """Remove all networks that no container uses, except the default network (bridge)."""
    from minicontainer.network import members, networks, store

    if not force:
        confirm("Remove all networks that no container uses?")
    idle = [network.name for network in store.readable() if network.name != "bridge" and not members.of(network.name)]
    return each_name(idle, networks.remove)


@group.command("inspect")
@format_option("json", short=True)
@NETWORK.argument()
def inspect(format_: str, names: Sequence[str]) -> int:
    """Show the details of networks and their containers as a JSON list, or with -f by a template."""
    from minicontainer.cli.inspect import inspect_each
    from minicontainer.network import store

    return inspect_each(names, lambda name: _inspected(store.read(name)), format_)


def _inspected(network: Any) -> dict[str, Any]:
    """The JSON object of ``docker network inspect``; the keys of ``Containers`` are short ids."""
    from minicontainer.network import members

    subnets = [(network.subnet, network.gateway), (network.subnet6, network.gateway6)]
    return {
        "Name": network.name,
        "Id": network.name,
        "Created": format_time(network.created),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": network.subnet6 is not None,
        "IPAM": {"Config": [{"Subnet": str(net), "Gateway": str(gate)} for net, gate in subnets if net is not None]},
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

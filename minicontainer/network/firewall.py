"""The nftables table that isolates networks, masquerades their traffic and publishes ports: ``inet minicontainer``
(with the mark of a state directory other than the default one).

Theory of operation. The rules are constant; the sets (bridges, subnets) and the maps (published ports) change. There is
a map for ports on any address and one for ports on a specific address, and the same two for IPv6. A map is one lookup,
whatever its size, and publishing a port adds an element. The whole table can be loaded again at any time (``load``)
from the files of networks, in one transaction. Rules of other programs are never touched.

A packet to a published port gets the container's address when it comes in (dstnat), or leaves the host itself (local:
also to 127.0.0.1, for which a bridge has route_localnet; ``guard`` keeps members of the network from using that).

IPv6 has no route_localnet: a packet from or to ::1 that comes in by a bridge is dropped (ip6_rcv() of
net/ipv6/ip6_input.c), and a reply whose translation was reversed at input (by br_netfilter even before that check)
would be lost. So a packet from ::1 to a published port of ::1 gets another source address of the host, on the bridge
(``loopback6``), before the connection is tracked; its replies get ::1 back after the last translation, in the host's
own input (``loopback6_in``).

If the host does not forward IPv6, packets from outside are not translated: the host refuses the connection at once.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from minicontainer import runtime
from minicontainer.errors import UnsupportedError
from minicontainer.linux import nftables
from minicontainer.linux.nfnetlink import concatenation, elements
from minicontainer.network import bridge
from minicontainer.network.record import Network, loopback6
from minicontainer.spec import Port

MAPS = ("published", "published_at", "published6", "published6_at", "loopback6")
NUMBERS = {"tcp": 6, "udp": 17}  # protocols(5)
RULES = """\
add table inet {table}
delete table inet {table}
table inet {table} {{
	map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; {published} }}
	map published_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {published_at} }}
	map published6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; {published6} }}
	map published6_at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; {published6_at} }}
	map loopback6 {{ type inet_proto . inet_service : ipv6_addr; {loopback6} }}
	set bridges {{ type ifname; {bridges} }}
	set same_bridge {{ type ifname . ifname; {same_bridge} }}
	set internal {{ type ifname; {internal} }}
	set subnets {{ type ipv4_addr; flags interval; {subnets} }}
	set subnets6 {{ type ipv6_addr; flags interval; {subnets6} }}
	chain guard {{
		type filter hook prerouting priority raw;
		iifname @bridges ip daddr 127.0.0.0/8 drop
	}}
	chain loopback6_out {{
		type filter hook output priority raw;
		ip6 saddr ::1 ip6 daddr ::1 ip6 saddr set meta l4proto . th dport map @loopback6
	}}
	chain loopback6_in {{
		type filter hook input priority 150;
		iifname @bridges ip6 saddr ::1 ct status dnat ip6 daddr set ::1
	}}
	chain publish {{
		dnat ip to ip daddr . meta l4proto . th dport map @published_at
		fib daddr type local dnat ip to meta l4proto . th dport map @published
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at
		fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
	}}
	chain dstnat {{
		type nat hook prerouting priority dstnat;
		{outside6}
		jump publish
	}}
	chain local {{
		type nat hook output priority -100;
		jump publish
	}}
	chain srcnat {{
		type nat hook postrouting priority srcnat;
		oifname != @bridges oifname != "lo" ip saddr @subnets masquerade
		oifname != @bridges oifname != "lo" ip6 saddr @subnets6 masquerade
		oifname @bridges ct status dnat ip saddr 127.0.0.0/8 masquerade
		oifname @bridges ct status dnat ip saddr @subnets masquerade
		oifname @bridges ct status dnat ip6 saddr @subnets6 masquerade
		oifname @bridges ct status dnat meta nfproto ipv6 fib saddr type local masquerade
	}}
	chain forward {{
		type filter hook forward priority filter;
		iifname . oifname @same_bridge accept
		ct state established,related accept
		iifname @internal drop
		oifname @internal drop
		ct status dnat accept
		oifname @bridges drop
	}}
}}
"""


def table() -> str:
    """The name of this state directory's table."""
    return "minicontainer" + runtime.suffix()


class Element(NamedTuple):
    """A published port as a map element: address and port of the host (``address`` None: any), address and port of the
    container. With ``container_port`` 0: ``target`` is the host's source address instead of ::1."""

    address: IPv4Address | IPv6Address | None
    protocol: str
    host_port: int
    target: IPv4Address | IPv6Address
    container_port: int

    @property
    def map(self) -> str:
        """The map of this element."""
        if not self.container_port:
            return "loopback6"
        return f"published{'6' if self.target.version == 6 else ''}{'' if self.address is None else '_at'}"

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """Key and value in the kernel's format."""
        address = [] if self.address is None else [self.address.packed]
        host_port = [bytes([NUMBERS[self.protocol]]), struct.pack("!H", self.host_port)]
        container_port = [struct.pack("!H", self.container_port)] if self.container_port else []
        return concatenation(*address, *host_port), concatenation(self.target.packed, *container_port)

    def __str__(self) -> str:
        address = "" if self.address is None else f"{self.address} . "
        port = f" . {self.container_port}" if self.container_port else ""
        return f"{address}{self.protocol} . {self.host_port} : {self.target}{port}"


def elements_of(port: Port, four: IPv4Address, six: IPv6Address | None) -> Iterator[Element]:
    """The elements of a published port, which is of one address family; ``four`` and ``six`` are the container's
    addresses."""
    host = ip_address(port.address or "0.0.0.0")
    address = None if host.is_unspecified else host
    if host.version == 4:
        yield Element(address, port.protocol, port.host, four, port.number)
    elif six is not None:
        yield Element(address, port.protocol, port.host, six, port.number)
        if address is None or address.is_loopback:
            yield Element(None, port.protocol, port.host, loopback6(six), 0)


def added(map_: str, published: Iterable[Element]) -> bytes:
    """The transaction that adds elements to a map."""
    return elements(table(), map_, [element.pair for element in published])


def removed(element: Element) -> bytes:
    """The transaction that removes an element."""
    return elements(table(), element.map, [element.pair], remove=True)


def load(networks: Iterable[Network], published: Iterable[Element]) -> None:
    """Loads the whole table in one transaction; removes it if there is no network."""
    own, ports = [network for network in networks if bridge.is_own(network)], list(published)
    if not own:
        nftables.run(f"add table inet {table()}\ndelete table inet {table()}")
        return
    nftables.run(
        RULES.format(
            table=table(),
            **{name: _elements(str(element) for element in ports if element.map == name) for name in MAPS},
            outside6="" if bridge.read_sysctl(bridge.FORWARDING6) == "1" else "meta nfproto ipv6 return",
            bridges=_elements(f'"{network.interface}"' for network in own),
            same_bridge=_elements(f'"{network.interface}" . "{network.interface}"' for network in own),
            internal=_elements(f'"{network.interface}"' for network in own if network.internal),
            subnets=_elements(str(network.subnet) for network in own if not network.internal),
            subnets6=_elements(str(n.subnet6) for n in own if n.subnet6 is not None and not n.internal),
        )
    )


def exists() -> bool:
    """Whether this state directory's table exists. False without libnftables or without permission: such a caller
    cannot have created a table."""
    try:
        listed = nftables.run("list tables").get("nftables", ())
    except (UnsupportedError, nftables.NftablesError):
        return False
    return any(item.get("table", {}).get("name") == table() for item in listed)


def bridges() -> list[str]:
    """The bridges in the table."""
    if not exists():
        return []
    listed = nftables.run(f"list set inet {table()} bridges").get("nftables", ())
    return [name for item in listed for name in item.get("set", {}).get("elem", ())]


def _elements(items: Iterable[str]) -> str:
    listed = ", ".join(dict.fromkeys(items))
    return f"elements = {{ {listed} }}" if listed else ""


MISSING = (errno.ENOENT,)  # the element, or the whole table, does not exist

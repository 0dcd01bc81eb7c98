"""The table of nftables that keeps networks apart, leads out of them, and publishes ports: ``inet minicontainer``
(with the mark of another state directory than the default one).

Theory of operation. The rules never change; what does are sets: which bridges there are, and which port of the host
leads where. Two maps have the published ports, one of those on any address and one of those on a certain one, and two
those of IPv6: each is one lookup, however many there are, and to publish is to add an element. The whole table can be
made again at any time (``load``), of what the files of networks say, in one transaction. No rule of others is ever
touched.

A packet to a published port is led to the container where it comes in (dstnat), or on the way out of the host itself
(local: also to 127.0.0.1, for which a bridge has route_localnet; ``guard`` sees that nobody on it makes use of that).

IPv6 has no route_localnet: nothing from or to ::1 comes in by a bridge (ip6_rcv() of net/ipv6/ip6_input.c), and an
answer whose translation was undone where it came in (by br_netfilter even before that look) would be lost. So what
goes from ::1 to a published port of ::1 is given another source, an address that the host has on the bridge
(``near``), before the connection is tracked; and its answers get ::1 back behind the last translation, in the host's
own input (``near_in``).

Where the host does not forward IPv6, what comes from outside is not led on: it is refused, and not lost on the way.
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
from minicontainer.network.record import Network, near
from minicontainer.spec import Port

MAPS = ("published", "published_at", "published6", "published6_at", "near")
NUMBERS = {"tcp": 6, "udp": 17}  # protocols(5)
RULES = """\
add table inet {table}
delete table inet {table}
table inet {table} {{
	map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; {published} }}
	map published_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {published_at} }}
	map published6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; {published6} }}
	map published6_at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; {published6_at} }}
	map near {{ type inet_proto . inet_service : ipv6_addr; {near} }}
	set bridges {{ type ifname; {bridges} }}
	set inside {{ type ifname . ifname; {inside} }}
	set internal {{ type ifname; {internal} }}
	set subnets {{ type ipv4_addr; flags interval; {subnets} }}
	set subnets6 {{ type ipv6_addr; flags interval; {subnets6} }}
	chain guard {{
		type filter hook prerouting priority raw;
		iifname @bridges ip daddr 127.0.0.0/8 drop
	}}
	chain near_out {{
		type filter hook output priority raw;
		ip6 saddr ::1 ip6 daddr ::1 ip6 saddr set meta l4proto . th dport map @near
	}}
	chain near_in {{
		type filter hook input priority 150;
		iifname @bridges ip6 saddr ::1 ct status dnat ip6 daddr set ::1
	}}
	chain lead {{
		dnat ip to ip daddr . meta l4proto . th dport map @published_at
		fib daddr type local dnat ip to meta l4proto . th dport map @published
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at
		fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
	}}
	chain dstnat {{
		type nat hook prerouting priority dstnat;
		{outside6}
		jump lead
	}}
	chain local {{
		type nat hook output priority -100;
		jump lead
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
		iifname . oifname @inside accept
		ct state established,related accept
		iifname @internal drop
		oifname @internal drop
		ct status dnat accept
		oifname @bridges drop
	}}
}}
"""


def table() -> str:
    """The name of the table of this state directory."""
    return "minicontainer" + runtime.suffix()


class Element(NamedTuple):
    """A published port: where it is seen (``address`` None: any of the host's), and where it leads; or, with 0 for
    ``inside``, the address from which the host goes to it instead of ::1."""

    address: IPv4Address | IPv6Address | None
    protocol: str
    number: int
    to: IPv4Address | IPv6Address
    inside: int

    @property
    def map(self) -> str:
        """The map that it is in."""
        if not self.inside:
            return "near"
        return f"published{'6' if self.to.version == 6 else ''}{'' if self.address is None else '_at'}"

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """Key and value, as the kernel has them."""
        seen = [bytes([NUMBERS[self.protocol]]), struct.pack("!H", self.number)]
        where = [] if self.address is None else [self.address.packed]
        inside = [struct.pack("!H", self.inside)] if self.inside else []
        return concatenation(*where, *seen), concatenation(self.to.packed, *inside)

    def __str__(self) -> str:
        where = "" if self.address is None else f"{self.address} . "
        inside = f" . {self.inside}" if self.inside else ""
        return f"{where}{self.protocol} . {self.number} : {self.to}{inside}"


def elements_of(port: Port, four: IPv4Address, six: IPv6Address | None) -> Iterator[Element]:
    """Those of a port of an address of one family, which leads to a container's address of the same."""
    given = ip_address(port.address or "0.0.0.0")
    seen = None if given.is_unspecified else given
    if given.version == 4:
        yield Element(seen, port.protocol, port.host, four, port.number)
    elif six is not None:
        yield Element(seen, port.protocol, port.host, six, port.number)
        if seen is None or seen.is_loopback:
            yield Element(None, port.protocol, port.host, near(six), 0)


def added(map_: str, published: Iterable[Element]) -> bytes:
    """The transaction that adds elements to one map."""
    return elements(table(), map_, [element.pair for element in published])


def removed(element: Element) -> bytes:
    """The transaction that removes one."""
    return elements(table(), element.map, [element.pair], remove=True)


def load(networks: Iterable[Network], published: Iterable[Element]) -> None:
    """Makes the table again, whole, in one transaction; removes it where there is no network."""
    found, ports = [network for network in networks if bridge.is_own(network)], list(published)
    if not found:
        nftables.run(f"add table inet {table()}\ndelete table inet {table()}")
        return
    nftables.run(
        RULES.format(
            table=table(),
            **{name: _listed(str(element) for element in ports if element.map == name) for name in MAPS},
            outside6="" if bridge.read_sysctl(bridge.FORWARDING6) == "1" else "meta nfproto ipv6 return",
            bridges=_listed(f'"{network.interface}"' for network in found),
            inside=_listed(f'"{network.interface}" . "{network.interface}"' for network in found),
            internal=_listed(f'"{network.interface}"' for network in found if network.internal),
            subnets=_listed(str(network.subnet) for network in found if not network.internal),
            subnets6=_listed(str(n.subnet6) for n in found if n.subnet6 is not None and not n.internal),
        )
    )


def is_there() -> bool:
    """Whether there is our table; who has no library, or no right to look, has made none."""
    try:
        listed = nftables.run("list tables").get("nftables", ())
    except (UnsupportedError, nftables.NftablesError):
        return False
    return any(item.get("table", {}).get("name") == table() for item in listed)


def bridges() -> list[str]:
    """Those that our table knows."""
    if not is_there():
        return []
    listed = nftables.run(f"list set inet {table()} bridges").get("nftables", ())
    return [name for item in listed for name in item.get("set", {}).get("elem", ())]


def _listed(items: Iterable[str]) -> str:
    listed = ", ".join(dict.fromkeys(items))
    return f"elements = {{ {listed} }}" if listed else ""


GONE = (errno.ENOENT,)  # an element, or the whole table

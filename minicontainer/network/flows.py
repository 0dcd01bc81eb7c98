"""Deletes tracked connections (conntrack(8)) that would keep an outdated translation.

Theory of operation. The destination of a connection is decided at its first packet, and stored. A UDP connection lasts
as long as packets are sent between two ports: a client that sent before a port was published would never reach the
container, and a client of an ended container would never reach its successor. So tracked connections are deleted: when
a port is published, the UDP connections to it (TCP connections to the host stay); when a lease ends, those to its
address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from minicontainer.linux import nfnetlink
from minicontainer.native import lib
from minicontainer.network.firewall import NUMBERS, Element
from minicontainer.plan import Slot, Step
from minicontainer.plan.netlink import end_flows


def published(sock: Slot, elements: Iterable[Element]) -> Iterator[Step]:
    """Deletes UDP connections to newly published ports. Connections through this host to the same port of another host
    have their source translated, and stay."""
    for element in elements:
        if element.container_port and element.protocol == "udp":
            yield _forget_to(sock, element, 0, lib.IPS_SRC_NAT)


def ended(sock: Slot, address: IPv4Address, elements: Iterable[Element]) -> Iterator[Step]:
    """Deletes connections to an address. The kernel cannot filter by an IPv6 address (nfnetlink.py): so for IPv6 it
    deletes translated connections to the lease's ports, and UDP connections to the same port numbers, which are tracked
    again at their next packet."""
    yield end_flows(sock, nfnetlink.end_answers(address), f"IPCTNL_MSG_CT_DELETE from {address}")
    for element in elements:
        if (
            element.container_port
            and element.target.version == 6
            and (element.protocol == "udp" or element.address is None)
        ):
            yield _forget_to(sock, element, lib.IPS_DST_NAT, lib.IPS_DST_NAT)


def _forget_to(sock: Slot, element: Element, status: int, mask: int) -> Step:
    version, protocol, address = element.target.version, element.protocol, element.address
    target = address if isinstance(address, IPv4Address) else None
    message = nfnetlink.end_flows(version, NUMBERS[protocol], element.host_port, target, status=status, mask=mask)
    return end_flows(
        sock, message, f"IPCTNL_MSG_CT_DELETE to {target or f'IPv{version}'} {protocol} {element.host_port}"
    )

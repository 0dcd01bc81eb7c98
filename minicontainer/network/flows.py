"""Tracked connections (conntrack(8)) that would go on as they began, whatever is published meanwhile.

Theory of operation. Where a connection's packets are led is decided at its first one, and remembered. Of UDP a
connection is whoever sends from one port to another, and lasts as long as he does: so who sent before a port was
published would never reach the container, nor its successor who had reached it. What was there is forgotten: when a
port is published, all that goes to it by UDP (a connection of TCP is somebody's, who has it from before: that stays);
and when a lease ends, all that its address answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from minicontainer.linux import nfnetlink
from minicontainer.native import lib
from minicontainer.network.firewall import NUMBERS, Element
from minicontainer.plan import Slot, Step
from minicontainer.plan.netlink import end_flows


def published(sock: Slot, elements: Iterable[Element]) -> Iterator[Step]:
    """Forgets what goes to ports that are published now by UDP. What is on its way through this host, to such a port of
    another, has its source translated, and is left alone."""
    for element in elements:
        if element.inside and element.protocol == "udp":
            yield _to(sock, element, 0, lib.IPS_SRC_NAT)


def ended(sock: Slot, address: IPv4Address, elements: Iterable[Element]) -> Iterator[Step]:
    """Forgets what an address answers; and of IPv6, of which the kernel cannot be told one (nfnetlink.py), what was led
    to ports that are its alone, and all by UDP to their numbers: another's begins anew with its next packet."""
    yield end_flows(sock, nfnetlink.end_answers(address), f"IPCTNL_MSG_CT_DELETE from {address}")
    for element in elements:
        if element.inside and element.to.version == 6 and (element.protocol == "udp" or element.address is None):
            yield _to(sock, element, lib.IPS_DST_NAT, lib.IPS_DST_NAT)


def _to(sock: Slot, element: Element, status: int, mask: int) -> Step:
    version, protocol, address = element.to.version, element.protocol, element.address
    target = address if isinstance(address, IPv4Address) else None
    told = nfnetlink.end_flows(version, NUMBERS[protocol], element.number, target, status=status, mask=mask)
    return end_flows(sock, told, f"IPCTNL_MSG_CT_DELETE to {target or f'IPv{version}'} {protocol} {element.number}")

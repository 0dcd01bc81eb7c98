"""Tracked connections (conntrack(8)) that would go on as they began, whatever is published meanwhile.

Theory of operation. Where a connection's packets are led is decided at its first one, and remembered. Of UDP a
connection is whoever sends from one port to another, and lasts as long as he does: so who sent before a port was
published would never reach the container, nor its successor who had reached it. What was there is forgotten: when a
port is published, all that goes to it by UDP (a connection of TCP is somebody's, who has it from before: that stays);
and when a lease ends, all that its address answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from minicontainer.linux import nfnetlink
from minicontainer.netsteps import end_flows
from minicontainer.network.firewall import NUMBERS, Element
from minicontainer.plan import Slot, Step


def published(sock: Slot, elements: Iterable[Element]) -> Iterator[Step]:
    """Forgets what goes to ports that are published now."""
    for element in elements:
        if element.protocol == "udp":
            told = nfnetlink.end_flows(element.to.version, NUMBERS["udp"], element.number, element.address)
            where = f"{element.address or f'IPv{element.to.version}'} udp {element.number}"
            yield end_flows(sock, told, f"IPCTNL_MSG_CT_DELETE to {where}")


def answered(sock: Slot, address: IPv4Address | IPv6Address) -> Step:
    """Forgets what an address answers."""
    return end_flows(sock, nfnetlink.end_answers(address), f"IPCTNL_MSG_CT_DELETE from {address}")

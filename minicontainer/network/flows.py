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
from minicontainer.netsteps import end_flows
from minicontainer.network.firewall import NUMBERS, Element
from minicontainer.plan import Slot, Step


def published(sock: Slot, elements: Iterable[Element]) -> Iterator[Step]:
    """Forgets what goes to ports that are published now by UDP. What is on its way through this host, to such a port of
    another, has its source translated, and is left alone."""
    for element in elements:
        if element.protocol == "udp":
            told = nfnetlink.end_flows(4, NUMBERS["udp"], element.number, element.address, mask=lib.IPS_SRC_NAT)
            yield end_flows(sock, told, f"IPCTNL_MSG_CT_DELETE to {element.address or 'any'} udp {element.number}")


def answered(sock: Slot, address: IPv4Address) -> Step:
    """Forgets what an address answers."""
    return end_flows(sock, nfnetlink.end_answers(address), f"IPCTNL_MSG_CT_DELETE from {address}")

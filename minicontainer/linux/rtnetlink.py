"""rtnetlink(7) messages as bytes, encoded by pyroute2 and sent by plans: a veth pair, addresses, a route.

Values that are known only when a message is sent (a pid, an interface, an address) have offsets in it
(``Message.places``), where C writes them. The offsets are found by unique placeholder values.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any, NamedTuple

from minicontainer.native import lib

NUMBER, ADDRESS = 0x5A7F13C1, IPv4Address("203.113.197.91")
SEQUENCE = 1
NEW = lib.NLM_F_REQUEST | lib.NLM_F_ACK | lib.NLM_F_CREATE | lib.NLM_F_EXCL


class Message(NamedTuple):
    """``data``; ``places``: the offset of the pid or interface number (0: none), then those of the IPv4 address."""

    data: bytes
    places: tuple[int, ...] = ()


def veth(bridge: int, inside: str) -> Message:
    """RTM_NEWLINK: a veth pair. One end, named by the kernel and up, is a port of ``bridge`` (an interface's number);
    the other is the interface ``inside`` in the network namespace of a process, with a MAC address that ends with its
    IPv4 address."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    peer = {
        "attrs": [
            ("IFLA_IFNAME", inside),
            ("IFLA_ADDRESS", "02:42:" + ":".join(f"{byte:02x}" for byte in ADDRESS.packed)),
            ("IFLA_NET_NS_PID", NUMBER),
        ],
    }
    kind = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    fields = {"flags": lib.IFF_UP, "change": lib.IFF_UP}
    attrs = [("IFLA_IFNAME", "veth%d"), ("IFLA_MASTER", bridge), ("IFLA_LINKINFO", kind)]
    return _message(ifinfmsg(), lib.RTM_NEWLINK, fields, attrs)


def up() -> Message:
    """RTM_NEWLINK: bring an interface up (the peer of a veth cannot be created up)."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    fields = {"index": NUMBER, "flags": lib.IFF_UP, "change": lib.IFF_UP}
    return _message(ifinfmsg(), lib.RTM_NEWLINK, fields, [], flags=lib.NLM_F_REQUEST | lib.NLM_F_ACK)


def address(prefix: int) -> Message:
    """RTM_NEWADDR: the IPv4 address of an interface."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    fields = {"family": lib.AF_INET, "prefixlen": prefix, "index": NUMBER}
    return _message(ifaddrmsg(), lib.RTM_NEWADDR, fields, [("IFA_LOCAL", str(ADDRESS)), ("IFA_ADDRESS", str(ADDRESS))])


def address6(network: IPv6Network) -> Message:
    """RTM_NEWADDR: the address of ``network`` that ends with the IPv4 address; without duplicate address detection."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    whole = IPv6Address(int(network.network_address) | int(ADDRESS))
    fields = {
        "family": lib.AF_INET6,
        "prefixlen": network.prefixlen,
        "index": NUMBER,
        "flags": lib.IFA_F_NODAD,
    }
    return _message(ifaddrmsg(), lib.RTM_NEWADDR, fields, [("IFA_LOCAL", str(whole)), ("IFA_ADDRESS", str(whole))])


def route(gateway: IPv4Address | IPv6Address) -> Message:
    """RTM_NEWROUTE: the default route."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    fields = {
        "family": lib.AF_INET if gateway.version == 4 else lib.AF_INET6,
        "table": lib.RT_TABLE_MAIN,
        "proto": lib.RTPROT_BOOT,
        "scope": lib.RT_SCOPE_UNIVERSE,
        "type": lib.RTN_UNICAST,
    }
    return _message(rtmsg(), lib.RTM_NEWROUTE, fields, [("RTA_GATEWAY", str(gateway)), ("RTA_OIF", NUMBER)])


def _message(msg: Any, kind: int, fields: dict[str, int], attrs: list[tuple[str, Any]], flags: int = NEW) -> Message:
    msg["header"]["type"], msg["header"]["flags"] = kind, flags
    msg["header"]["sequence_number"] = SEQUENCE
    for name, value in fields.items():
        msg[name] = value
    msg["attrs"] = attrs
    msg.encode()
    data = bytes(msg.data)
    pids = _places(data, NUMBER.to_bytes(4, sys.byteorder))
    addresses = _places(data, ADDRESS.packed)
    return Message(data, (pids[0] if pids else 0, *addresses) if pids or addresses else ())


def _places(data: bytes, what: bytes) -> list[int]:
    offsets, at = [], data.find(what)
    while at >= 0:
        offsets.append(at)
        at = data.find(what, at + 1)
    return offsets

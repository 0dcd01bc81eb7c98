"""Chooses the subnets of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from minicontainer import runtime
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.spec.network import address as parsed

POOL, PREFIX = IPv4Network("10.144.0.0/12"), 20  # 256 networks of 4,093 addresses
LEAST = 30  # the longest prefix: network address, host, one member, broadcast address


def requested(subnet: str, used: Iterable[IPv4Network]) -> IPv4Network:
    """The requested subnet. SpecError if it is invalid, too small or too large, or overlaps one of ``used``."""
    try:
        parsed_subnet = IPv4Network(subnet)
    except ValueError as e:
        raise SpecError("subnet", subnet, f"is no IPv4 network: {e}", "as in 10.5.0.0/24") from None
    if parsed_subnet.prefixlen > LEAST:
        raise SpecError("subnet", subnet, f"is too small: a prefix of {LEAST} at the most")
    if parsed_subnet.prefixlen < 8:
        raise SpecError("subnet", subnet, "is too large: a prefix of 8 at the least")
    if parsed_subnet.is_multicast or parsed_subnet.is_loopback or parsed_subnet.is_unspecified:
        raise SpecError("subnet", subnet, "is not for hosts")
    if taken := next((other for other in used if other.overlaps(parsed_subnet)), None):
        raise SpecError("subnet", subnet, f"overlaps {taken}, which is in use here")
    return parsed_subnet


def free(used: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet of POOL that overlaps none of ``used``."""
    taken = list(used)
    for candidate in POOL.subnets(new_prefix=PREFIX):
        if not any(other.overlaps(candidate) for other in taken):
            return candidate
    raise UnsupportedError("network", None, f"all of {POOL} is in use", "--subnet")


def gateway(subnet: IPv4Network, wanted: str | None) -> IPv4Address:
    """The host's address in a subnet: the requested one, else the first."""
    if wanted is None:
        return subnet[1]
    address = parsed("gateway", wanted)
    if not isinstance(address, IPv4Address) or address not in subnet or address in (subnet[0], subnet[-1]):
        raise SpecError("gateway", wanted, f"is no host's address of {subnet}")
    return address


def unique_local(name: str) -> IPv6Network:
    """The IPv6 subnet of the network of this name: a unique local /64 (RFC 4193)."""
    digest = hashlib.sha256(f"minicontainer{runtime.suffix()} {name}".encode()).digest()
    return IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))

"""Which addresses a network gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from minicontainer import runtime
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.spec.network import address as parsed

POOL, PREFIX = IPv4Network("10.144.0.0/12"), 20  # 256 networks of 4,093 addresses
LEAST = 30  # the longest prefix: the network, the host, one address, broadcast


def given(subnet: str, used: Iterable[IPv4Network]) -> IPv4Network:
    """The one that was asked for. SpecError where it is none, too small, or overlaps what is ``used``."""
    try:
        found = IPv4Network(subnet)
    except ValueError as e:
        raise SpecError("subnet", subnet, f"is no IPv4 network: {e}", "as in 10.5.0.0/24") from None
    if found.prefixlen > LEAST:
        raise SpecError("subnet", subnet, f"is too small: a prefix of {LEAST} at the most")
    if found.prefixlen < 8:
        raise SpecError("subnet", subnet, "is too large: a prefix of 8 at the least")
    if found.is_multicast or found.is_loopback or found.is_unspecified:
        raise SpecError("subnet", subnet, "is not for hosts")
    if taken := next((other for other in used if other.overlaps(found)), None):
        raise SpecError("subnet", subnet, f"overlaps {taken}, which is in use here")
    return found


def free(used: Iterable[IPv4Network]) -> IPv4Network:
    """The first of POOL that overlaps none that is ``used``."""
    taken = list(used)
    for found in POOL.subnets(new_prefix=PREFIX):
        if not any(other.overlaps(found) for other in taken):
            return found
    raise UnsupportedError("network", None, f"all of {POOL} is in use", "--subnet")


def gateway(subnet: IPv4Network, wish: str | None) -> IPv4Address:
    """The host's address in it: the first, or the one that was asked for."""
    if wish is None:
        return subnet[1]
    found = parsed("gateway", wish)
    if not isinstance(found, IPv4Address) or found not in subnet or found in (subnet[0], subnet[-1]):
        raise SpecError("gateway", wish, f"is no host's address of {subnet}")
    return found


def unique_local(name: str) -> IPv6Network:
    """A network of IPv6 for one of that name (RFC 4193: fd, 40 bits, a subnet)."""
    digest = hashlib.sha256(f"minicontainer{runtime.suffix()} {name}".encode()).digest()
    return IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))

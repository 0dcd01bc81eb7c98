"""Network namespaces from the inside: the loopback, and what links there are (pyroute2, imported only here)."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Any, NamedTuple

from minicontainer.native import lib


class Link(NamedTuple):
    """One interface: addresses as ``127.0.0.1/8``."""

    number: int
    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...]


def loopback_up() -> None:
    """Brings ``lo`` up in this network namespace (netdevice(7), SIOCSIFFLAGS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, lib.SIOCSIFFLAGS, struct.pack("=16sh22x", b"lo", lib.IFF_UP))


def links(netns: str | None = None) -> list[Link]:
    """The interfaces of a network namespace (a path such as /proc/PID/ns/net; None: ours), by index.

    The namespace is entered by a thread of its own, which ends with it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_links, netns).result()


def _links(netns: str | None) -> list[Link]:
    from pyroute2 import IPRoute

    if netns is not None:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            from minicontainer.linux.namespaces import setns

            setns(fd, "CLONE_NEWNET")
        finally:
            os.close(fd)
    with IPRoute() as ip:
        found = [_link(message, ip.get_addr(index=message["index"])) for message in ip.get_links()]
    return sorted(found)


def _link(message: Any, addresses: Any) -> Link:
    shown = tuple(f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in addresses)
    up = bool(message["flags"] & lib.IFF_UP)
    return Link(message["index"], message.get_attr("IFLA_IFNAME"), up, message.get_attr("IFLA_MTU"), shown)

"""Network interfaces of a namespace (netdevice(7), rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

from minicontainer.linux.arguments import StrPath
from minicontainer.native import lib, syscall
from minicontainer.plan.step import const

IFREQ = struct.Struct("=16sh22x")  # struct ifreq: ifr_name, ifr_flags


class Link(NamedTuple):
    """One interface: addresses as ``127.0.0.1/8``."""

    number: int
    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...]


def loopback_up() -> None:
    """Bring ``lo`` up in this network namespace (netdevice(7), SIOCSIFFLAGS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        get, put = const("SIOCGIFFLAGS"), const("SIOCSIFFLAGS")
        request = bytearray(IFREQ.pack(b"lo", 0))
        syscall("ioctl", lib.SYS_ioctl, sock.fileno(), get, request, what=(get, "lo"))
        wanted = IFREQ.pack(b"lo", IFREQ.unpack(request)[1] | lib.IFF_UP)
        syscall("ioctl", lib.SYS_ioctl, sock.fileno(), put, wanted, what=(put, "lo", const("IFF_UP")))


def links(netns: int | StrPath | None = None) -> list[Link]:
    """The interfaces of a network namespace by index: of a /proc/PID/ns/net (path or descriptor), or the caller's.

    A thread of its own enters the namespace."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_links, netns).result()


def _links(netns: int | StrPath | None) -> list[Link]:
    from pyroute2 import IPRoute

    if netns is not None:
        from minicontainer.linux.namespaces import setns

        setns(netns, "CLONE_NEWNET")
    with IPRoute() as ip:
        interfaces = [_link(message, ip.get_addr(index=message["index"])) for message in ip.get_links()]
    return sorted(interfaces)


def _link(message: Any, addresses: Any) -> Link:
    shown = tuple(f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in addresses)
    up = bool(message["flags"] & lib.IFF_UP)
    return Link(message["index"], message.get_attr("IFLA_IFNAME"), up, message.get_attr("IFLA_MTU"), shown)

"""The bridge of a network. pyroute2 runs in a thread of its own: its IPRoute does not work in a running event loop."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any, TypeVar

from minicontainer import runtime
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.linux import rtnetlink
from minicontainer.linux.rtnetlink import Message
from minicontainer.native import lib
from minicontainer.network.record import Network

INFINITY_LIFE_TIME = 0xFFFFFFFF  # INFINITY_LIFE_TIME of the kernel's net/addrconf.h
CONTAINER_INTERFACE = "eth0"  # the name of the veth in the container
FORWARDING, FORWARDING6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"

T = TypeVar("T")


def interface_of(name: str) -> str:
    """The bridge's name: at most 15 characters (netdevice(7)), six of which are the mark of a state directory other
    than the default one."""
    digest, own = hashlib.sha256(name.encode()).hexdigest(), runtime.suffix()
    if own:
        return f"mc{own[1:7]}-{digest[:6]}"
    return "mc0" if name == "bridge" else f"mc-{digest[:10]}"


def interfaces(*, others: bool = False) -> list[str]:
    """The bridges of this state directory; with ``others``, those of all state directories."""
    own = runtime.suffix()
    own_pattern = f"mc{own[1:7]}-[0-9a-f]{{6}}" if own else "mc0|mc-[0-9a-f]{10}"
    pattern = re.compile("mc0|mc-[0-9a-f]{10}|mc[0-9a-f]{6}-[0-9a-f]{6}" if others else own_pattern)
    return [name for _, name in socket.if_nameindex() if pattern.fullmatch(name)]


def is_own(network: Network) -> bool:
    """Whether the bridge belongs to this state directory; else the network's file was copied from another one."""
    return network.interface == interface_of(network.name)


def number(interface: str) -> int:
    """The index of an interface; 0 if there is none."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def make(network: Network) -> int:
    """Creates the bridge, or completes it; returns its interface index."""
    index = _in_thread(lambda ip: _make(ip, network))
    failpoint("bridge made")
    write_sysctl(f"ipv4/conf/{network.interface}/route_localnet", "1")
    if network.subnet6 is not None:
        write_sysctl(f"ipv6/conf/{network.interface}/accept_ra", "0")
    return index


def _make(ip: Any, network: Network) -> int:
    hardware = "02:42:" + ":".join(f"{byte:02x}" for byte in network.gateway.packed)
    if not number(network.interface):
        ip.link("add", ifname=network.interface, kind="bridge", address=hardware)
    index = number(network.interface)
    failpoint("link added")
    ip.link("set", index=index, state="up")
    _add_address(ip, index=index, address=str(network.gateway), prefixlen=network.subnet.prefixlen)
    if network.subnet6 is not None:
        prefix, flags = network.subnet6.prefixlen, lib.IFA_F_NODAD
        _add_address(ip, index=index, address=str(network.gateway6), prefixlen=prefix, flags=flags)
        deprecated = {"preferred_lft": 0, "valid_lft": INFINITY_LIFE_TIME}  # the host uses it for no other connection
        _add_address(ip, index=index, address=str(network.loopback6), prefixlen=128, flags=flags, **deprecated)
    return index


def _add_address(ip: Any, **fields: Any) -> None:
    from pyroute2 import NetlinkError

    try:
        ip.addr("add", **fields)
    except NetlinkError as e:
        if e.code != errno.EEXIST:
            raise


def remove(interface: str) -> None:
    """Removes a bridge; no effect if there is none."""
    if index := number(interface):
        _in_thread(lambda ip: ip.link("del", index=index))


def messages(network: Network, index: int) -> tuple[tuple[str, Message], ...]:
    """The netlink messages that connect a member. They are encoded once per network, since the import of pyroute2 takes
    longer than the connection."""
    prefix = network.subnet.prefixlen
    encoded = {
        "veth": rtnetlink.veth(index, CONTAINER_INTERFACE),
        "up": rtnetlink.up(),
        "address": rtnetlink.address(prefix),
    }
    if not network.internal:
        encoded["route"] = rtnetlink.route(network.gateway)
    if network.subnet6 is not None:
        encoded["address6"] = rtnetlink.address6(network.subnet6)
        if network.gateway6 is not None and not network.internal and read_sysctl(FORWARDING6) == "1":
            encoded["route6"] = rtnetlink.route(network.gateway6)
    return tuple(encoded.items())


def used() -> list[IPv4Network]:
    """The networks in which this host has addresses, or to which it has routes."""
    return _in_thread(_used)


def _used(ip: Any) -> list[IPv4Network]:
    networks = []
    for message in ip.get_addr(family=socket.AF_INET):
        networks.append(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
    for message in ip.get_routes(family=socket.AF_INET):
        if message["dst_len"] and (where := message.get_attr("RTA_DST")):
            networks.append(f"{where}/{message['dst_len']}")
    return [IPv4Network(text, strict=False) for text in dict.fromkeys(networks)]


def has_ipv6() -> bool:
    """Whether IPv6 is enabled on this host."""
    try:
        with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", encoding="ascii") as f:
            return f.read(1) == "0"
    except OSError:
        return False


def _in_thread(function: Callable[[Any], T]) -> T:
    """Calls ``function`` with an IPRoute in a new thread. StepError for an error of netlink."""
    from concurrent.futures import ThreadPoolExecutor

    from pyroute2 import IPRoute, NetlinkError

    def call() -> T:
        with IPRoute() as ip:
            return function(ip)

    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(call).result()
        except NetlinkError as e:
            if e.code == errno.EPERM:
                reason = "the interfaces of this host are root's to change"
                raise UnsupportedError("network", None, reason, "run it as root") from None
            hint = "the kernel has no bridges: modprobe bridge" if e.code == errno.EOPNOTSUPP else ""
            raise StepError(e.code or errno.EIO, "rtnetlink(bridge)", hint=hint) from None


# ---- sysctl(8)


def read_sysctl(name: str) -> str:
    """The content of a file of /proc/sys/net; "" if it is missing."""
    try:
        with open(f"/proc/sys/net/{name}", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""


def write_sysctl(name: str, value: str) -> None:
    """Writes a file of /proc/sys/net, if the value differs."""
    path = f"/proc/sys/net/{name}"
    if read_sysctl(name) == value or not os.path.exists(path):
        return
    try:
        with open(path, "w", encoding="ascii") as f:
            f.write(value)
    except OSError as e:
        raise StepError(e.errno or errno.EIO, f'write("{path}", "{value}")') from None

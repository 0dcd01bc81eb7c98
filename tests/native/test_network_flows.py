"""Whoever sends by UDP from one port all the time: he reaches whom the port is published for now, with real packets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from packets import PATIENCE, bound, inside, server

import minicontainer as mc
from minicontainer.linux import nftables
from minicontainer.network import firewall, networks
from minicontainer.network.record import Network

pytestmark = [pytest.mark.needs("root", "bridge"), pytest.mark.usefixtures("no_network_stays")]

Make = Callable[..., mc.Container]
NUMBER = 20053


@contextlib.contextmanager
def sender(address: str) -> Iterator[socket.socket]:
    """Always sends from the same port; has sent already, when nobody was there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.connect((address, NUMBER))
        with pytest.raises(OSError, match="refused"):
            reached(s)
        yield s


def reached(s: socket.socket) -> bytes:
    s.send(b"word")
    return s.recv(2048)


@pytest.mark.parametrize("where", ["127.0.0.1", "gateway", "::1", "gateway6"])
def test_who_sent_before_reaches_the_container_and_its_successor(on: Make, network: Network, where: str) -> None:
    address = str(getattr(network, where, where))
    ports = mc.Port.option(f"{NUMBER}:80/udp")
    with sender(address) as s:
        for name in ("web", "successor"):
            c = on(name, ports=ports)
            with server(c.pid, 80, udp=True, ipv6=":" in address) as seen:
                assert reached(s) == b"word"
            assert len(seen) == 1
            c.remove(force=True)
            with pytest.raises(OSError, match="refused"):
                reached(s)


def test_a_range_of_ports_of_one_address(on: Make, network: Network) -> None:
    with sender(str(network.gateway)) as s, sender("127.0.0.1") as other:
        c = on("web", ports=mc.Port.option(f"{network.gateway}:{NUMBER - 50}-{NUMBER + 49}:1050-1149/udp"))
        with server(c.pid, 1100, udp=True):
            assert reached(s) == b"word"
            with pytest.raises(OSError, match="refused"):
                reached(other)


def test_from_outside(on: Make, outside: subprocess.Popen[bytes]) -> None:
    with contextlib.ExitStack() as stack:
        s = stack.enter_context(inside(outside.pid, lambda: bound(socket.SOCK_DGRAM, "198.51.100.2", NUMBER + 1)))
        s.connect(("198.51.100.1", NUMBER))
        with pytest.raises(OSError, match="refused"):
            reached(s)
        c = on("web", ports=mc.Port.option(f"{NUMBER}:80/udp"))
        with server(c.pid, 80, udp=True) as seen:
            assert reached(s) == b"word"
        assert seen == ["198.51.100.2"]


def test_when_the_table_is_made_again(on: Make, network: Network) -> None:
    """Somebody took it away, and who sent meanwhile got nowhere."""
    c = on("web", ports=mc.Port.option(f"{NUMBER}:80/udp"))
    with server(c.pid, 80, udp=True):
        nftables.run(f"delete table inet {firewall.table()}")
        nftables.run("add table ip test; add chain ip test c { type filter hook input priority 0; }")
        nftables.run("add rule ip test c ct state new counter")  # connections are tracked
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(PATIENCE)
            s.connect(("127.0.0.1", NUMBER))
            s.send(b"lost")
            networks.repair(network.name)
            assert reached(s) == b"word"
    nftables.run("delete table ip test")


def test_what_is_on_its_way_through_stays(on: Make, outside: subprocess.Popen[bytes]) -> None:
    """To a port of another host, whatever its number: its source is translated, and must be again."""
    client = on("client")
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(inside(outside.pid, lambda: bound(socket.SOCK_DGRAM, "198.51.100.2", NUMBER)))
        s = stack.enter_context(inside(client.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        s.settimeout(PATIENCE)
        s.connect(("198.51.100.2", NUMBER))
        s.send(b"word")
        data, where = there.recvfrom(100)
        on("web", ports=mc.Port.option(f"{NUMBER}:80/udp"))
        there.sendto(data, where)
        assert s.recv(100) == b"word"


def test_what_others_say_by_ipv6_goes_on(on: Make, network: Network) -> None:
    """When one ends: the kernel takes a filter by an address of IPv6 for one by every other."""
    web, other = on("web"), on("other")
    six = str(network.address6(web.lease().address))  # type: ignore[union-attr]
    nftables.run("add table ip6 test; add chain ip6 test c { type nat hook output priority -100; }")
    nftables.run(f"add rule ip6 test c ip6 daddr 2001:db8::1 tcp dport 81 dnat to [{six}]:80")
    subprocess.run(["ip", "-6", "route", "add", "2001:db8::1", "dev", network.interface], check=True)
    with inside(web.pid, lambda: bound(socket.SOCK_STREAM, "::", 80, socket.AF_INET6)) as s:
        client = socket.create_connection(("2001:db8::1", 81), timeout=PATIENCE)
        theirs, _ = s.accept()
        with client, theirs:
            other.remove(force=True)
            theirs.sendall(b"word")
            assert client.recv(100) == b"word"
    nftables.run("delete table ip6 test")

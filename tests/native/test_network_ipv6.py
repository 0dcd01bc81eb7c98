"""Published ports on IPv6, with real packets: the host's ::1, its other addresses, and from outside."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from box import refusal
from packets import PATIENCE, ask, bound, inside, is_reached, server
from supplies import Run

import minicontainer as mc
from minicontainer.linux import nftables
from minicontainer.network import bridge, firewall, networks
from minicontainer.network.record import Network

pytestmark = [pytest.mark.needs("root", "bridge"), pytest.mark.usefixtures("no_network_stays")]

Make = Callable[..., mc.Container]
HERE, THERE = "2001:db8::1", "2001:db8::2"
BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")


def ports(container: mc.Container) -> list[mc.Port]:
    found = container.lease()
    assert found is not None
    return list(found.ports)


def elements() -> int:
    """Of every map."""
    listed = [nftables.run(f"list map inet {firewall.table()} {name}")["nftables"] for name in firewall.MAPS]
    return sum(len(item["map"].get("elem", ())) for items in listed for item in items if "map" in item)


@pytest.fixture(params=["0", "1"] if BRIDGED.exists() else ["none"])
def bridged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without br_netfilter and with it: translation is undone behind the bridge, or in it."""
    before = BRIDGED.read_text() if BRIDGED.exists() else ""
    if before:
        BRIDGED.write_text(request.param)
    yield
    if before:
        BRIDGED.write_text(before)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.usefixtures("bridged")
def test_any_address_of_the_host(on: Make, network: Network, udp: bool) -> None:
    web = on("web", ports=mc.Port.option(f"80{'/udp' if udp else ''}"))
    four, six = ports(web)
    assert (four.address, six.address, four.host) == ("0.0.0.0", "::", six.host)
    with server(web.pid, 80, udp=udp, ipv6=True) as seen:  # of IPv4 too
        assert ask("127.0.0.1", four.host, udp=udp) == b"word"
        assert ask("::1", six.host, udp=udp) == b"word"
        assert ask(str(network.gateway6), six.host, udp=udp) == b"word"
    assert seen[1:] == [str(network.gateway6)] * 2
    web.remove(force=True)
    assert not is_reached("::1", six.host, udp=udp)
    assert elements() == 0


@pytest.mark.usefixtures("bridged")
def test_more_than_a_packet(on: Make) -> None:
    """Both ways: to ::1 they are longer than on the bridge."""
    web, data = on("web", ports=mc.Port.option("80")), bytes(range(256)) * 4096
    with (
        inside(web.pid, lambda: bound(socket.SOCK_STREAM, "::", 80, socket.AF_INET6)) as s,
        ThreadPoolExecutor(1) as pool,
    ):
        client = socket.create_connection(("::1", ports(web)[1].host), timeout=PATIENCE)
        theirs, _ = s.accept()
        with client, theirs:
            theirs.settimeout(PATIENCE)
            for one, other in ((client, theirs), (theirs, client)):
                sent = pool.submit(one.sendall, data)
                assert other.makefile("rb").read(len(data)) == data
                sent.result()


@pytest.mark.parametrize(("address", "reached"), [("::1", "100"), ("::", "110"), ("0.0.0.0", "001")])
def test_one_address(on: Make, network: Network, address: str, reached: str) -> None:
    """And the same port of the other family is anybody's."""
    shown, other = (f"[{address}]", "127.0.0.1") if ":" in address else (address, "::1")
    web = on("web", ports=mc.Port.option(f"{shown}::80"))
    (port,) = ports(web)
    assert port.address == address
    with server(web.pid, 80, ipv6=True):
        asked = ("::1", str(network.gateway6), "127.0.0.1")
        assert "".join(str(int(is_reached(where, port.host, patience=PATIENCE))) for where in asked) == reached
    socket.create_server((other, port.host), family=socket.AF_INET6 if ":" in other else socket.AF_INET).close()
    web.remove(force=True)
    assert elements() == 0


def test_what_others_have(on: Make) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as holder:
        number = holder.getsockname()[1]
        with pytest.raises(mc.SpecError, match=rf"\[::\]:{number}/tcp: is taken by another program"):
            on("web", ports=mc.Port.option(f"{number}:80"))
        web = on("web", ports=mc.Port.option(f"0.0.0.0:{number}:80"))
        with pytest.raises(mc.SpecError, match=rf"0.0.0.0:{number}/tcp: is taken by container .*web"):
            on("other", ports=mc.Port.option(f"{number}:80"))
        assert len(ports(web)) == 1


@pytest.mark.parametrize("forwards", ["0", "1"])
def test_from_outside(make: Make, forwards: str, request: pytest.FixtureRequest) -> None:
    """Where the host forwards IPv6; where it does not, it is refused at once."""
    before = bridge.read_sysctl(bridge.FORWARDING6)
    bridge.write_sysctl(bridge.FORWARDING6, forwards)
    try:
        network, outside = request.getfixturevalue("network"), request.getfixturevalue("outside")
        subprocess.run(["ip", *f"addr add {HERE}/64 dev test-out nodad".split()], check=True)
        words = f"addr add {THERE}/64 dev out nodad".split()
        subprocess.run(["nsenter", f"--net=/proc/{outside.pid}/ns/net", "ip", *words], check=True)
        web = make("sleep", "1000", name="web", network=network.name, ports=mc.Port.option("80"))
        number = ports(web)[1].host
        with server(web.pid, 80, ipv6=True) as seen:
            assert ask(HERE, number) == b"word"
            if forwards == "1":
                assert inside(outside.pid, lambda: ask(HERE, number)) == b"word"
                assert seen[1:] == [THERE]
            else:
                with pytest.raises(ConnectionRefusedError):
                    inside(outside.pid, lambda: ask(HERE, number))
    finally:
        bridge.write_sysctl(bridge.FORWARDING6, before)


def test_a_network_without_ipv6(make: Make) -> None:
    networks.create("test-net", ipv6=False)
    web = make("sleep", "1000", name="web", network="test-net", ports=mc.Port.option("80"))
    assert [port.address for port in ports(web)] == ["0.0.0.0"]
    with pytest.raises(mc.SpecError, match=r"ports \[::1\]:0->80/tcp: the network has no IPv6"):
        make("true", network="test-net", ports=mc.Port.option("[::1]::80"))


def test_as_commands_show_it(minicontainer_cli: Run, rootfs: Path, network: Network) -> None:
    def cli(*words: str) -> str:
        done = minicontainer_cli(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = ("--name", "test-web", "--network", network.name, "-p", "18080:80", "-p", "[::1]:18081:81/udp")
    c = cli("run", "-d", *words, str(rootfs), "sleep", "1000").strip()
    try:
        shown = cli("port", c).splitlines()
        assert shown == ["80/tcp -> 0.0.0.0:18080", "80/tcp -> [::]:18080", "81/udp -> [::1]:18081"]
        listed = cli("ps", "--format", "{{.Ports}}").strip()
        assert listed == "0.0.0.0:18080->80/tcp, [::]:18080->80/tcp, [::1]:18081->81/udp"
        (told,) = json.loads(cli("inspect", c))
        assert told["NetworkSettings"]["Ports"]["80/tcp"][1] == {"HostIp": "::", "HostPort": "18080"}
        taken = minicontainer_cli("run", "-p", "[::1]:18080:80", "--network", network.name, str(rootfs), "true")
        refusal(taken, says=["[::1]:18080/tcp", "is taken by container", "test-web"])
    finally:
        cli("rm", "-f", c)

"""Containers on networks, with real packets: to each other, from the host, from outside, to what they may not reach."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from box import Box, line_of, refusal, started, until
from packets import ask, inside, is_reached, server
from supplies import Run

import minicontainer as mc
from minicontainer.container.registry import names
from minicontainer.linux import nftables
from minicontainer.network import bridge, firewall, members, networks, store
from minicontainer.network.record import Network

pytestmark = [pytest.mark.needs("root", "bridge"), pytest.mark.usefixtures("no_network_stays")]

Make = Callable[..., mc.Container]
NAME = "test-net"


def lease(container: mc.Container) -> members.Record:
    found = container.lease()
    assert found is not None
    return found


def address(container: mc.Container) -> str:
    return str(lease(container).address)


def elements(map_: str = "published") -> int:
    listed = nftables.run(f"list map inet {firewall.table()} {map_}")["nftables"]
    return sum(len(item["map"].get("elem", ())) for item in listed if "map" in item)


# ---- inside


def test_two_talk_by_name(on: Make) -> None:
    web, client = (on(name, cap_add=("NET_RAW",)) for name in ("web", "client"))  # for busybox's ping
    with server(web.pid, 80) as seen:
        assert inside(client.pid, lambda: ask(address(web), 80)) == b"word"
    assert seen == [address(client)]
    assert client.run(["ping", "-c1", "-W3", "web"], capture_output=True).returncode == 0
    assert web.run(["ping", "-c1", "-W3", client.id[:12]], capture_output=True).returncode == 0
    assert client.run(["hostname"], capture_output=True, text=True).stdout == "client\n"
    assert client.run(["cat", "/etc/hostname"], capture_output=True, text=True).stdout == "client\n"


def test_an_unnamed_one_is_known_by_its_id(on: Make) -> None:
    web, client = on(None), on("client", cap_add=("NET_RAW",))
    script = "hostname; cat /etc/hostname; grep -ow $(hostname) /etc/hosts"
    said = web.run(["sh", "-c", script], capture_output=True, text=True).stdout
    assert said.split() == [web.id[:12]] * 4  # there by IPv4 and IPv6
    assert client.run(["ping", "-c1", "-W3", web.id[:12]], capture_output=True).returncode == 0


def test_who_has_gone_has_no_name(on: Make) -> None:
    web, client = on("web"), on("client", add_hosts={"elsewhere": "192.0.2.1"})
    hosts = ["cat", "/etc/hosts"]
    assert f"{address(web)}\tweb" in client.run(hosts, capture_output=True, text=True).stdout
    web.stop(0)
    said = client.run(hosts, capture_output=True, text=True).stdout
    assert "\n10." in said
    assert all("web" not in line.split() for line in said.splitlines() if not line.startswith("#"))
    assert "192.0.2.1\telsewhere" in said
    other = on("other")
    texts = [c.run(hosts, capture_output=True, text=True).stdout for c in (other, client)]
    assert all(f"\n{address(other)}\tother" in text for text in texts)
    assert [("\n192.0.2.1\telsewhere" in text) for text in texts] == [False, True]


def test_the_hosts_file_is_not_theirs_to_write(on: Make) -> None:
    """It is that of all."""
    web = on("web", userns="host")
    done = web.run(["sh", "-c", "echo 1.2.3.4 bank >> /etc/hosts"], capture_output=True, text=True)
    assert "Read-only" in done.stderr
    assert "bank" not in Path(store.path(NAME, "hosts", "names")).read_text()


def test_ipv6(on: Make, network: Network) -> None:
    if network.subnet6 is None:
        pytest.fail("this host has no IPv6")
    web, client = on("web"), on("client")
    six = str(network.address6(lease(web).address))
    with server(web.pid, 80, ipv6=True) as seen:
        assert inside(client.pid, lambda: ask(six, 80)) == b"word"
        assert ask(six, 80) == b"word"
    assert seen == [str(network.address6(lease(client).address)), str(network.gateway6)]


def test_what_was_asked_for(on: Make, network: Network) -> None:
    wanted = str(network.subnet[77])
    c = on("web", ip=wanted, mac_address="02-00-00-00-00-4D", dns=("192.0.2.53",), add_hosts={"host": "host-gateway"})
    assert address(c) == wanted
    script = "ip addr show eth0; cat /etc/resolv.conf /etc/hosts"
    said = c.run(["sh", "-c", script], capture_output=True, text=True).stdout
    assert "02:00:00:00:00:4d" in said
    assert f"{wanted}/{network.subnet.prefixlen}" in said
    assert "nameserver 192.0.2.53" in said
    assert f"{network.gateway}\thost" in said


@pytest.mark.parametrize("userns", ["host", "keep-id", "auto"])
def test_whatever_its_user_namespace(on: Make, userns: str) -> None:
    web = on("web", userns=userns, ports=mc.Port.option("80"), cap_add=("NET_RAW",))
    with server(web.pid, 80):
        assert ask("127.0.0.1", lease(web).ports[0].host) == b"word"
    assert web.run(["sh", "-c", "cat /etc/hosts > /dev/null && ping -c1 -W3 web"], capture_output=True).returncode == 0


def test_the_network_of_another_container(on: Make, box: Box) -> None:
    web = on("web")
    with server(web.pid, 80):
        script = f"wget -qO- http://{address(web)}:80/ 2>&1; ip -o addr show eth0; cat /etc/hosts"
        said = box.sh(script, "--network", "container:web")
    assert f"inet {address(web)}/" in said
    assert f"{address(web)}\tweb" in said
    web.stop(0)
    box.refused("true", options=["--network", "container:web"], says=["container:web", "does not run"])
    box.refused("true", options=["--network", "container:nobody"], says=["container:nobody", "there is no such"])


def test_the_words_for_that_container(on: Make, make: Make, box: Box) -> None:
    """What each command takes: a name, an id, or the beginning of one id alone; a name before that."""
    web, other = on("web"), make("sleep", "1000")
    beginning = web.id[:12]
    for word in ("web", web.id, beginning):
        said = box.sh("readlink /proc/self/ns/net; cat /etc/hosts", "--network", f"container:{word}")
        assert os.readlink(f"/proc/{web.pid}/ns/net") in said
        assert f"{address(web)}\tweb" in said
    twin = Path(names.detached(beginning.ljust(64, "0")))
    twin.mkdir()
    box.refused("true", options=["--network", f"container:{beginning}"], says=[beginning, "could be any of 2"])
    twin.rmdir()
    other.rename(beginning)
    said = box.sh("readlink /proc/self/ns/net", "--network", f"container:{beginning}")
    assert os.readlink(f"/proc/{other.pid}/ns/net") == said


def test_the_files_of_that_container_are_not_opened(make: Make, box: Box, own_box: Box, tmp_path: Path) -> None:
    """A link there could lead to what only the host's root can read: who joins has what that container was given."""
    secret = tmp_path / "secret"
    secret.write_text("the host's own\n")
    secret.chmod(0o600)
    lie = "ln -sf /mnt/secret /etc/hosts && ln -sf /proc/vmallocinfo /etc/resolv.conf && exec sleep 1000"
    options: dict[str, Any] = {"cap_add": ("SYS_ADMIN",), "mounts": (mc.Mount("/mnt", str(tmp_path)),)}
    options |= {"rootfs": str(own_box.rootfs), "add_hosts": {"elsewhere": "192.0.2.1"}, "dns": ("192.0.2.53",)}
    web = make("sh", "-c", f"umount /etc/hosts /etc/resolv.conf && {lie}", name="web", **options)
    until(lambda: Path(f"/proc/{web.pid}/root/etc/resolv.conf").is_symlink())
    side = make("sleep", "1000", name="side", network="container:web")
    for other in ("web", "side"):
        seen = side.run(["cat", "/etc/hosts"], capture_output=True, text=True).stdout
        said = box.sh("cat /etc/hosts /etc/resolv.conf", "--network", f"container:{other}")
        assert "192.0.2.1\telsewhere\n" in said
        assert said == f"{seen}nameserver 192.0.2.53"


def test_the_names_of_who_has_names_of_its_own(on: Make, box: Box) -> None:
    on("web", add_hosts={"elsewhere": "192.0.2.1"}, dns=("192.0.2.53",))
    said = box.sh("cat /etc/hosts /etc/resolv.conf", "--network", "container:web")
    assert "192.0.2.1\telsewhere" in said
    assert "nameserver 192.0.2.53" in said


def test_a_detached_one_on_the_network_of_another(on: Make, make: Make) -> None:
    """Also after a restart, and for what is executed in it."""
    web = on("web")
    with pytest.raises(mc.SpecError, match="restart always"):
        make("sleep", "1000", network="container:web", restart="always")
    side = make("sleep", "1000", network="container:web")
    side.restart(0)
    assert os.readlink(f"/proc/{side.pid}/ns/net") == os.readlink(f"/proc/{web.pid}/ns/net")
    said = side.run(["ip", "addr", "show", "eth0"], capture_output=True, text=True).stdout
    assert f"inet {address(web)}/" in said


def test_the_host_is_reached(on: Make, network: Network) -> None:
    client = on("client")
    with socket.create_server((str(network.gateway), 0)) as mine:
        number = mine.getsockname()[1]
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(inside, client.pid, lambda: ask(str(network.gateway), number))
            mine.settimeout(5)
            connection, where = mine.accept()
            with connection:
                connection.sendall(connection.recv(10))
            assert (asked.result(), where[0]) == (b"word", address(client))


def test_a_program_that_is_missing(rootfs: Path, network: Network) -> None:
    """The container dies when its network is there."""
    with pytest.raises(mc.ProgramError):
        mc.run(["/missing"], rootfs=rootfs, network=NAME, ports=mc.Port.option("80"), add_hosts={"a": "1.2.3.4"})
    assert members.of(NAME) == []
    assert elements() == 0


def test_a_dry_run_makes_nothing(box: Box) -> None:
    said = box.sh("true", "-p", "8080:80", "--dry-run")
    assert f"RTM_NEWLINK veth, {bridge.interface_of(networks.DEFAULT)} to eth0" in said
    assert "RTM_NEWADDR eth0" in said
    assert store.names() == []


# ---- kept apart


def test_two_networks_are_kept_apart(on: Make) -> None:
    networks.create("test-other")
    web, stranger = on("web"), on("stranger", network="test-other")
    with server(web.pid, 80):
        assert not inside(stranger.pid, lambda: is_reached(address(web), 80))
        assert ask(address(web), 80) == b"word"
    assert "web" not in stranger.run(["cat", "/etc/hosts"], capture_output=True, text=True).stdout


def test_no_way_leads_out_of_an_internal_one(make: Make) -> None:
    network = networks.create(NAME, internal=True)
    c = make("sleep", "1000", network=NAME, name="inner")
    assert "default" not in c.run(["ip", "route"], capture_output=True, text=True).stdout
    with server(c.pid, 80):
        assert ask(address(c), 80) == b"word"
    networks.create("test-other")
    other = make("sleep", "1000", network="test-other", name="outer")
    with server(other.pid, 80):
        route = ["ip", "route", "add", "default", "via", str(network.gateway)]
        assert c.run(route, capture_output=True).returncode != 0  # it has no right to
        subprocess.run(["nsenter", f"--net=/proc/{c.pid}/ns/net", *route], check=True)
        assert not inside(c.pid, lambda: is_reached(address(other), 80))


def test_none_is_the_default(box: Box) -> None:
    assert "eth0" not in box.sh("ip link")
    assert store.names() == []


def test_the_way_out_and_in(on: Make, outside: subprocess.Popen[bytes]) -> None:
    web = on("web", ports=mc.Port.option("80"))
    number = lease(web).ports[0].host
    with server(outside.pid, 80) as seen:
        assert inside(web.pid, lambda: ask("198.51.100.2", 80)) == b"word"
    assert seen == ["198.51.100.1"]
    with server(web.pid, 80) as seen:
        assert inside(outside.pid, lambda: ask("198.51.100.1", number)) == b"word"
        route = ["ip", "route", "add", str(networks.inspect(NAME)["subnet"]), "via", "198.51.100.1"]
        subprocess.run(["nsenter", f"--net=/proc/{outside.pid}/ns/net", *route], check=True)
        assert not inside(outside.pid, lambda: is_reached(address(web), 80))
    assert seen == ["198.51.100.2"]


def test_the_host_s_loopback_is_not_theirs(on: Make, network: Network) -> None:
    """Though the bridge has route_localnet."""
    web = on("web")
    with socket.create_server(("127.0.0.1", 0)) as mine:
        number = mine.getsockname()[1]
        route = ["ip", "route", "add", "127.0.0.2/32", "via", str(network.gateway)]
        subprocess.run(["nsenter", f"--net=/proc/{web.pid}/ns/net", *route], check=True)
        assert not inside(web.pid, lambda: is_reached("127.0.0.2", number))


# ---- published ports


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_a_published_port(on: Make, network: Network, udp: bool) -> None:
    suffix = "/udp" if udp else ""
    web, client = on("web", ports=mc.Port.option(f"80{suffix}")), on("client")
    number = lease(web).ports[0].host
    with server(web.pid, 80, udp=udp):
        assert ask("127.0.0.1", number, udp=udp) == b"word"
        assert ask(str(network.gateway), number, udp=udp) == b"word"
        assert inside(client.pid, lambda: ask(str(network.gateway), number, udp=udp)) == b"word"
        bridged = Path(
            "/proc/sys/net/bridge/bridge-nf-call-iptables"
        )  # with it, a packet does not turn back to its port
        turns = not bridged.exists() or bridged.read_text() == "0\n"
        assert inside(web.pid, lambda: is_reached(str(network.gateway), number, udp=udp)) == turns
        web.stop(0)
        assert not is_reached("127.0.0.1", number, udp=udp)
    assert elements() == 0


def test_a_port_of_one_address(on: Make, network: Network) -> None:
    web = on("web", ports=mc.Port.option("127.0.0.1::80"))
    number = lease(web).ports[0].host
    with server(web.pid, 80):
        assert ask("127.0.0.1", number) == b"word"
        assert not is_reached(str(network.gateway), number)
    assert (elements(), elements("published_at")) == (0, 1)


def test_a_range_of_ports(on: Make) -> None:
    web = on("web", ports=mc.Port.option("20000-20199:1000-1199"))
    assert elements() == 200
    with server(web.pid, 1099):
        assert ask("127.0.0.1", 20099) == b"word"
    web.remove(force=True)
    assert elements() == 0


def test_thousands_of_connections(on: Make) -> None:
    web = on("web", ports=mc.Port.option("80"))
    number = lease(web).ports[0].host
    with server(web.pid, 80) as seen, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: ask("127.0.0.1", number, data=b"%d" % i), range(3000)))
    assert answers == [b"%d" % i for i in range(3000)]
    assert len(seen) == 3000


def test_ports_stay_published_over_restarts(on: Make) -> None:
    web = on("web", restart="always", ports=mc.Port.option("80"))
    number, first = lease(web).ports[0].host, web.pid
    os.kill(first, 9)
    until(lambda: web.pid not in (0, first))
    with server(web.pid, 80):
        assert ask("127.0.0.1", number) == b"word"


def test_who_has_a_port_can_be_stopped(network: Network, box: Box, minicontainer_cli: Run, rootfs: Path) -> None:
    """Also one in the foreground, without a name: the id that is said is one that commands take."""
    command = ("run", "--network", NAME, "-p", "80", rootfs, "sh", "-c", "echo ready; exec sleep 1000")
    with started(*command) as process:
        assert line_of(process) == "ready"
        (record,) = members.of(NAME)
        number = record.ports[0].host
        said = box.refused("true", options=["-p", f"{number}:80"], says=["is taken by container "])
        (identifier,) = re.findall("container ([0-9a-f]{12})", said)
        assert identifier in minicontainer_cli("ps").stdout
        assert f"{number}->80/tcp" in minicontainer_cli("ps").stdout
        assert minicontainer_cli("stop", "-t", "0", identifier).returncode == 0
        assert process.wait(120) == 137
    assert members.of(NAME) == []


def test_all_that_is_exposed(box: Box, minicontainer_cli: Run, rootfs: Path) -> None:
    """-P publishes what --expose names, at free ports; either alone does nothing, which is said."""
    options = ["-P", "--expose", "80", "--expose", "53/udp", "--expose", "8080", "-p", "8080"]
    done = minicontainer_cli("run", "-d", *options, rootfs, "sleep", "1000")
    c = mc.Container.find(done.stdout.strip())
    try:
        ports = lease(c).ports
        assert sorted({(port.number, port.protocol) for port in ports}) == [(53, "udp"), (80, "tcp"), (8080, "tcp")]
        assert all(port.host for port in ports)
        assert done.stderr == ""
    finally:
        c.remove(force=True)
    for options, says in ((["--expose", "80"], "--expose 80: publishes nothing"), (["-P"], "--publish-all: publishes")):
        done = box.run("ls", "/sys/class/net", options=options)
        assert (done.returncode, done.stdout) == (0, "lo\n")
        assert done.stderr.startswith(f"minicontainer: {says}")
        assert done.stderr.count("\n") == 1
    box.refused("true", options=["-P", "--expose", "80", "--network", "none"], says=["--publish 80", "--network none"])
    box.refused("true", options=["--expose", "8080:80"], says=["--expose 8080:80", "-p"])


def test_a_port_that_is_taken(on: Make, box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        number = mine.getsockname()[1]
        says = [f"0.0.0.0:{number}/tcp", "is taken by another program of this host"]
        box.refused("true", options=["-p", f"{number}:80"], says=says)
    c = on("web", ports=mc.Port.option(f"{number}:80"))
    box.refused("true", options=["-p", f"{number}:80"], says=[f"is taken by container {c.id[:12]} (web)"])
    box.refused("true", options=["-p", f"127.0.0.1:{number}:80"], says=["(web)"])
    box.refused("true", options=["-p", "192.0.2.1:80:80"], says=["192.0.2.1:80/tcp", "is no address of this host"])
    assert [record.names.split()[0] for record in members.of(NAME)] == ["web"]
    assert members.of("bridge") == []


def test_no_rule_of_others_is_touched(on: Make) -> None:
    nftables.run("add table inet test-other; add chain inet test-other c; add rule inet test-other c tcp dport 1 drop")
    try:
        before = nftables.run("list table inet test-other")
        on("web", ports=mc.Port.option("80")).remove(force=True)
        networks.remove(NAME)
        assert nftables.run("list table inet test-other") == before
    finally:
        nftables.run("delete table inet test-other")


# ---- as the user types it


def test_the_command_line(box: Box, minicontainer_cli: Run) -> None:
    def cli(*words: str) -> str:
        done = minicontainer_cli(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert (
        cli("network", "create", "--subnet", "10.9.8.0/24", "--gateway", "10.9.8.254", "--no-ipv6", NAME) == f"{NAME}\n"
    )
    words = ("--name", "test-web", "--network", NAME, "-p", "127.0.0.1:18080:80", "-p", "53/udp")
    identifier = cli("run", "-d", *words, str(box.rootfs), "sleep", "1000").strip()
    (found,) = json.loads(cli("network", "inspect", NAME))
    assert found["IPAM"]["Config"] == [{"Subnet": "10.9.8.0/24", "Gateway": "10.9.8.254"}]
    assert (found["Name"], found["EnableIPv6"], found["Internal"]) == (NAME, False, False)
    (member,) = found["Containers"].values()
    assert list(found["Containers"]) == [identifier[:12]]
    assert (member["IPv4Address"], member["DNSNames"]) == ("10.9.8.1/24", ["test-web", identifier[:12]])
    assert cli("network", "inspect", "-f", "{{.Name}} {{.Driver}}", NAME) == f"{NAME} bridge\n"
    (listed,) = cli("network", "ls", "--format", "json", "--filter", f"name=^{NAME}$").splitlines()
    assert (json.loads(listed)["Subnet"], json.loads(listed)["Members"]) == ("10.9.8.0/24", 1)
    assert cli("network", "ls", "--filter", f"name=^{NAME[:-1]}$", "--format", "{{.Name}}") == ""
    (row,) = [line for line in cli("network", "ls").splitlines() if line.startswith(NAME)]
    assert row.split()[1:3] == ["10.9.8.0/24", "10.9.8.254"]
    assert cli("network", "ls", "-q") == f"{NAME}\n"
    assert cli("port", "test-web").splitlines()[0] == "80/tcp -> 127.0.0.1:18080"
    assert cli("port", "test-web", "80") == cli("port", "test-web", "80/tcp") == "127.0.0.1:18080\n"
    refusal(
        minicontainer_cli("port", "test-web", "80/udp"), says=["port 80/udp of container test-web: is not published"]
    )
    refusal(minicontainer_cli("port", "test-web", "x"), says=["PORT x: must be PORT[/udp]"])
    assert "127.0.0.1:18080->80/tcp" in cli("ps")
    (told,) = json.loads(cli("inspect", "test-web"))
    assert told["NetworkSettings"]["IPAddress"] == "10.9.8.1"
    assert told["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18080"}]
    assert list(told["NetworkSettings"]["Networks"]) == [NAME]
    in_use = minicontainer_cli("network", "rm", NAME)
    assert in_use.returncode == 1
    assert re.search(f"network {NAME}: is in use by container [0-9a-f]{{12}} \\(test-web\\)", in_use.stderr)
    assert cli("network", "prune", "-f") == ""
    cli("rm", "-f", "test-web")
    assert cli("network", "prune", "-f") == f"{NAME}\n"
    assert cli("network", "ls", "--format", "json") == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "none"), ["network none"]),
        (("create", "a/b"), ["network a/b"]),
        (("create", "--subnet", "10.0.0.1/24", "x"), ["subnet 10.0.0.1/24", "has host bits set"]),
        (("create", "--subnet", "10.0.0.0/31", "x"), ["subnet 10.0.0.0/31", "too small"]),
        (("create", "--subnet", "127.0.0.0/24", "x"), ["subnet 127.0.0.0/24"]),
        (("create", "--gateway", "192.0.2.1", "x"), ["gateway 192.0.2.1", "is no host's address"]),
    ],
)
def test_networks_that_cannot_be(minicontainer_cli: Run, words: tuple[str, ...], says: list[str]) -> None:
    refusal(minicontainer_cli("network", *words), says=says)


def test_what_is_there_already(network: Network, minicontainer_cli: Run) -> None:
    refusal(minicontainer_cli("network", "create", NAME), says=[NAME, "already exists"])
    overlapping = minicontainer_cli("network", "create", "--subnet", str(network.subnet), "test-other")
    refusal(overlapping, says=["subnet", f"overlaps {network.subnet}"])


def test_a_full_range(make: Make, box: Box) -> None:
    networks.create(NAME, subnet="10.9.8.0/29")
    for i in range(5):
        make("sleep", "1000", network=NAME, name=f"test-{i}")
    options = ["--network", NAME]
    box.refused("true", options=options, says=[NAME, "all 5 addresses of 10.9.8.0/29 are taken", "--subnet"])
    box.refused(
        "true", options=[*options, "--ip", "10.9.8.3"], says=["ip 10.9.8.3", "is taken by container ", "(test-1)"]
    )
    box.refused("true", options=[*options, "--ip", "10.9.9.3"], says=["ip 10.9.9.3", "10.9.8.0/29"])
    box.refused("true", options=[*options, "--ip", "10.9.8.1"], says=["ip 10.9.8.1", "host's own"])
    mc.Container.find("test-2").remove(force=True)
    assert "inet 10.9.8.4/29" in box.sh("ip addr show eth0", *options)


def test_in_a_running_event_loop(rootfs: Path) -> None:
    async def main() -> Any:
        networks.create(NAME)
        process = await mc.create_container_exec("ip", "addr", rootfs=str(rootfs), network=NAME, stdout=mc.PIPE)
        out, _ = await process.communicate()
        return out

    assert b"eth0" in asyncio.run(main())


def test_many_at_once(rootfs: Path, network: Network) -> None:
    """No address is given twice, and all are given back."""

    def once(_: int) -> str:
        words = ["ip", "-4", "-o", "addr", "show", "eth0"]
        done = mc.run(words, rootfs=rootfs, network=NAME, capture_output=True, text=True)
        return str(done.stdout.split()[3])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(once, range(64)))
    assert len(found) == 64
    assert members.of(NAME) == []
    assert sum(line[:1] != "#" for line in Path(store.path(NAME, "hosts", "names")).read_text().splitlines()) == 2

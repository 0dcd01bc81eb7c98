"""What networks read and write: ports, addresses, records, hosts files, messages. Nothing of it needs a privilege."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

import minicontainer as mc
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux import nfnetlink, rtnetlink
from minicontainer.network import hosts, subnets
from minicontainer.network.firewall import Element
from minicontainer.network.members import Record
from minicontainer.network.record import CorruptNetworkError, Network
from minicontainer.network.release import release_plan
from minicontainer.spec.data import from_data, to_data
from minicontainer.spec.network import parse_add_host

numbers = st.integers(1, 65535)
addresses = st.integers(0x0A000002, 0x0AFFFFFE).map(IPv4Address)
ports = st.builds(mc.Port, numbers, numbers, st.sampled_from(["tcp", "udp"]), st.sampled_from(["", "127.0.0.1"]))


# ---- -p


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80", mc.Port(80)),
        ("8080:80", mc.Port(80, 8080)),
        ("53/udp", mc.Port(53, 0, "udp")),
        ("5353:53/UDP", mc.Port(53, 5353, "udp")),
        ("127.0.0.1:8080:80", mc.Port(80, 8080, "tcp", "127.0.0.1")),
        ("127.0.0.1::80", mc.Port(80, 0, "tcp", "127.0.0.1")),
        ("0.0.0.0:1:2", mc.Port(2, 1, address="0.0.0.0")),
        ("[::]:1:2", mc.Port(2, 1, address="::")),
        ("[::1]::2/udp", mc.Port(2, 0, "udp", "::1")),
        ("[2001:DB8::0]:1:2", mc.Port(2, 1, address="2001:db8::")),
        ("[::ffff:192.0.2.1]:1:2", mc.Port(2, 1, address="192.0.2.1")),
    ],
)
def test_a_port(text: str, port: mc.Port) -> None:
    assert mc.Port.option(text) == (port,)


def test_a_range() -> None:
    assert mc.Port.option("8000-8002:80-82/udp") == tuple(mc.Port(80 + i, 8000 + i, "udp") for i in range(3))
    assert mc.Port.option("80-81") == (mc.Port(80), mc.Port(81))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "x",
        "80/sctp",
        "80/",
        ":80:80",
        "1-2:3",
        "2-1",
        "a:1:2",
        "::1:1:2",
        "[1.2.3.4]:1:2",
        "[fe80::1]:1:2",
        "[fe80::1%lo]:1:2",
        "1:2:3:4",
        "-1",
    ],
)
def test_no_port(text: str) -> None:
    refused(lambda: mc.Port.option(text), "publish")


@given(st.text(st.sampled_from("0123456789:-./tcpud[]"), max_size=24))
def test_any_text_is_ports_or_refused(text: str) -> None:
    try:
        found = mc.Port.option(text)
    except SpecError:
        return
    assert found
    assert all(1 <= port.number <= 65535 and 0 <= port.host <= 65535 for port in found)


# ---- the spec


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ports": (mc.Port(80),), "network": "host"}, "ports: is of no use with network=host ("),
        ({"ip": "10.0.0.2"}, "ip"),
        ({"ip": "::1", "network": "bridge"}, "ip ::1"),
        ({"ip": "10.0.0.256", "network": "bridge"}, "ip 10.0.0.256"),
        ({"mac_address": "02:00:00:00:00", "network": "bridge"}, "mac_address"),
        ({"mac_address": "01:00:00:00:00:00", "network": "bridge"}, "mac_address"),
        ({"dns": ("x",)}, "dns[0] x"),
        ({"add_hosts": {"a b": "1.2.3.4"}}, "add_hosts"),
        ({"add_hosts": {"a": "here"}}, "add_hosts here"),
        ({"network": "container:x", "dns": ("1.1.1.1",)}, "network container:x"),
        ({"network": "default"}, "network default"),
        ({"network": "-x"}, "network -x"),
    ],
)
def test_no_spec(fields: dict[str, Any], says: str) -> None:
    refused(lambda: mc.Spec(rootfs="r", **fields), says)


def test_ports_imply_the_bridge_and_all_is_kept_as_data() -> None:
    spec = mc.Spec(rootfs="r", ports=mc.Port.option("8080:80"), dns=("1.1.1.1",), add_hosts={"a": "host-gateway"})
    assert spec.network == spec.attached == "bridge"
    assert from_data(json.loads(json.dumps(to_data(spec)))) == spec


def test_add_host() -> None:
    assert parse_add_host(("a:1.2.3.4", "b:[::1]", "c:::1")) == {"a": "1.2.3.4", "b": "::1", "c": "::1"}
    assert parse_add_host(("a=1.2.3.4", "b=[::1]", "c=::1")) == {"a": "1.2.3.4", "b": "::1", "c": "::1"}
    refused(lambda: parse_add_host(("a",)), "add_hosts a")


def test_exposed_ports_get_free_ones_of_the_host() -> None:
    assert mc.Port.exposed("80") == (mc.Port(80),)
    assert mc.Port.exposed("53-54/udp") == (mc.Port(53, protocol="udp"), mc.Port(54, protocol="udp"))
    for value in ("8080:80", "x", "0", "80/sctp", ""):
        refused(lambda value=value: mc.Port.exposed(value), "expose")


# ---- which addresses


def test_subnets_are_free() -> None:
    first = subnets.free([])
    assert first == IPv4Network("10.144.0.0/20")
    assert subnets.free([first, IPv4Network("10.144.16.0/24")]) == IPv4Network("10.144.32.0/20")
    with pytest.raises(UnsupportedError, match="in use"):
        subnets.free([IPv4Network("10.0.0.0/8")])


@given(st.text(max_size=12))
def test_each_name_has_its_own_network_of_ipv6(name: str) -> None:
    network = subnets.unique_local(name)
    assert network.prefixlen == 64
    assert network.subnet_of(IPv6Network("fd00::/8"))
    assert network == subnets.unique_local(name)


# ---- files


def network() -> Network:
    return Network(
        "x",
        "mc-0",
        IPv4Network("10.9.8.0/24"),
        IPv4Address("10.9.8.1"),
        subnets.unique_local("x"),
        False,
        1.5,
        7,
        (("veth", rtnetlink.Message(b"\1\2", (3, 4))), ("up", rtnetlink.Message(b"\5"))),
    )


def test_a_network_is_what_its_file_says() -> None:
    assert Network.from_json(network().to_json()) == network()
    assert str(network().address6(IPv4Address("10.9.8.2"))).endswith(":a09:802")


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_file_is_a_network_or_corrupt(at: int, byte: int) -> None:
    data = bytearray(network().to_json().encode())
    data[at % len(data)] = byte
    try:
        Network.from_json(data.decode("utf-8", "replace"))
    except CorruptNetworkError:
        pass


lines = st.tuples(st.integers(0, 2**40))


@given(st.builds(Record, st.text(max_size=5), addresses, st.sampled_from(("a", "b c")), st.tuples(ports, ports), lines))
def test_a_lease_is_what_its_file_says(record: Record) -> None:
    assert Record.from_json(json.dumps(record.to_data())) == record
    calls = [step.call for step in release_plan(record).steps]
    assert calls.count("netlink") == 3
    assert calls[-1] == "unlinkat"


@given(st.one_of(st.text(max_size=30), st.dictionaries(st.text(max_size=8), st.integers()).map(json.dumps)))
def test_any_text_is_no_lease(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_json(text)


# ---- hosts files


@pytest.fixture
def directory(tmp_path: Path) -> Any:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    hosts.make(fd)
    yield fd
    os.close(fd)


def forget(path: Path, at: int) -> None:
    with path.open("r+b") as f:
        f.seek(at)
        f.write(b"#")


def known(path: Path) -> dict[str, str]:
    """Name -> address, as hosts(5) is read."""
    lines = [line.partition("#")[0].split() for line in path.read_text().splitlines()]
    return {name: words[0] for words in lines if words for name in words[1:]}


def test_names_come_and_go(tmp_path: Path, directory: int) -> None:
    shared = tmp_path / hosts.SHARED
    first = hosts.add(directory, "10.0.0.2", "a")
    hosts.make(directory, "10.0.0.9")
    second = hosts.add(directory, "192.0.2.1", "own", only="10.0.0.9")
    hosts.add(directory, "10.0.0.3", "b c")
    assert known(shared).items() >= {"a": "10.0.0.2", "b": "10.0.0.3", "c": "10.0.0.3"}.items()
    assert "own" not in known(shared)
    assert known(tmp_path / "10.0.0.9")["own"] == "192.0.2.1"
    assert hosts.lines_of(directory, "10.0.0.9") == [second]
    size = shared.stat().st_size
    for path in tmp_path.iterdir():
        forget(path, first)
    assert "a" not in known(shared)
    assert hosts.add(directory, "10.0.0.4", "d") == first
    assert shared.stat().st_size == size


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 99), st.integers(1, 40)), max_size=40))
def test_any_order_of_coming_and_going(tmp_path_factory: Any, steps: list[tuple[bool, int, int]]) -> None:
    path = tmp_path_factory.mktemp("hosts")
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        hosts.make(fd)
        there: dict[str, tuple[int, str]] = {}
        for comes, number, length in steps:
            name, address = f"n{number}" + "x" * length, f"10.0.0.{number}"
            if comes:
                there[name] = (hosts.add(fd, address, name), address)
            elif there:
                forget(path / hosts.SHARED, there.pop(next(iter(there)))[0])
        found = known(path / hosts.SHARED)
        assert {name: found.get(name) for name in there} == {name: address for name, (_, address) in there.items()}
    finally:
        os.close(fd)


# ---- messages


def test_places_are_where_the_numbers_go() -> None:
    made = rtnetlink.veth(7, "eth0")
    number, address = made.places
    assert made.data[number : number + 4] == rtnetlink.NUMBER.to_bytes(4, "little")
    assert made.data[address - 2 : address + 4] == b"\x02\x42" + rtnetlink.ADDRESS.packed
    assert rtnetlink.address(20).places[0] > 0
    assert len(rtnetlink.route(IPv4Address("10.0.0.1")).places) == 1


@pytest.mark.parametrize("remove", [False, True])
def test_a_transaction_of_elements(remove: bool) -> None:
    element = Element(None, "tcp", 8080, IPv4Address("10.0.0.2"), 80)
    data = nfnetlink.elements("t", element.map, [element.pair], remove=remove)
    assert (b"\x06\0\0\0\x1f\x90\0\0" in data, b"\x0a\0\0\x02\0\x50\0\0" in data) == (True, not remove)
    lengths, at = [], 0
    while at < len(data):
        lengths.append(int.from_bytes(data[at : at + 4], "little"))
        at += lengths[-1]
    assert at == len(data)
    assert len(lengths) == 3


def test_no_second_way_to_say_a_port() -> None:
    """What is shown of an element is what nft(8) takes."""
    assert str(Element(IPv4Address("1.2.3.4"), "udp", 53, IPv4Address("10.0.0.2"), 5353)) == (
        "1.2.3.4 . udp . 53 : 10.0.0.2 . 5353"
    )

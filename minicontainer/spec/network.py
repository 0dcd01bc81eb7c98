"""What a container wants of its network: published ports, addresses, names; also as docker's command line writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from minicontainer.errors import SpecError
from minicontainer.spec.values import error_context, network_name, text

PROTOCOLS = ("tcp", "udp")
PORT_MAX = 65535
HOST_GATEWAY = "host-gateway"  # of --add-host: the host, as the container reaches it
HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
FIELDS = ("ports", "ip", "mac_address", "dns", "add_hosts")  # of Spec


@dataclass(frozen=True)
class Port:
    """A published port: what comes to ``host`` (0: a free one) of the host's ``address`` goes to ``number`` of the
    container. ``0.0.0.0`` is any address of IPv4, ``::`` any of IPv6, and "" any of both."""

    number: int
    host: int = 0
    protocol: str = "tcp"
    address: str = ""

    def __post_init__(self) -> None:
        if text("port protocol", self.protocol) not in PROTOCOLS:
            raise SpecError("port protocol", self.protocol, f"must be one of {' '.join(PROTOCOLS)}")
        for name, number, least in (("number", self.number, 1), ("host", self.host, 0)):
            if type(number) is not int or not least <= number <= PORT_MAX:
                raise SpecError(f"port {name}", number, f"must be a whole number from {least} to {PORT_MAX}")
        if text("port address", self.address, empty=True):
            given = address("port address", self.address)
            if isinstance(given, IPv6Address):
                if given.scope_id or given.is_link_local:
                    raise SpecError("port address", self.address, "is of one link alone", "another address of the host")
                given = given.ipv4_mapped or given
            object.__setattr__(self, "address", str(given))

    @property
    def where(self) -> str:
        """Address and port of the host, as they are written."""
        shown = f"[{self.address}]" if ":" in self.address else self.address or "0.0.0.0"
        return f"{shown}:{self.host}"

    def __str__(self) -> str:
        return f"{self.where}->{self.number}/{self.protocol}"

    def meets(self, other: Port) -> bool:
        """Whether both want the same port of an address of the host."""
        if (self.host, self.protocol) != (other.host, other.protocol):
            return False
        if not (self.address and other.address):
            return True
        mine, its = ip_address(self.address), ip_address(other.address)
        return mine.version == its.version and (mine == its or mine.is_unspecified or its.is_unspecified)

    @classmethod
    def option(cls, value: str) -> tuple[Port, ...]:
        """``[[ip:][hostport]:]port[/udp]``, where ports can be ranges of the same length (``8000-8009:80-89``)."""
        words, slash, protocol = text("publish", value).partition("/")
        given, _, inside = words.rpartition(":")
        host, colon, outside = given.rpartition(":")
        numbers = _range(value, inside)
        outer = _range(value, outside) if outside else [0] * len(numbers)
        if colon and not host:
            raise SpecError("publish", value, "has an empty address", "[ip:][hostport:]port[/udp]")
        if len(outer) != len(numbers):
            raise SpecError("publish", value, f"has {len(outer)} ports outside and {len(numbers)} inside")
        in_brackets = host.startswith("[") and host.endswith("]")
        if in_brackets != (":" in host):
            raise SpecError("publish", value, "brackets are for an address of IPv6, and it needs them", "[::1]:8080:80")
        host = host[1:-1] if in_brackets else host
        kind = protocol.lower() if slash else "tcp"
        with error_context("publish", value):
            return tuple(cls(number, there, kind, host) for number, there in zip(numbers, outer, strict=True))

    @classmethod
    def exposed(cls, value: str) -> tuple[Port, ...]:
        """``port[-port][/udp]``, each at a free port of the host."""
        if ":" in text("expose", value):
            raise SpecError("expose", value, "names no port of the host", "-p does")
        with error_context("expose", value):
            return cls.option(value)


def _range(value: str, words: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", words):
        raise SpecError("publish", value, f"{words!r} is no port or range", "[ip:][hostport:]port[/udp]")
    first, _, last = words.partition("-")
    numbers = list(range(int(first), int(last or first) + 1))
    if not numbers or numbers[0] < 1 or numbers[-1] > PORT_MAX:
        raise SpecError("publish", value, f"{words!r} is not within 1 to {PORT_MAX}")
    return numbers


def address(what: str, value: object) -> IPv4Address | IPv6Address:
    """An IP address. SpecError where it is none."""
    try:
        return ip_address(text(what, value))
    except ValueError:
        raise SpecError(what, value, "is no IP address", "such as 10.88.0.7 or fd00::7") from None


def check_network(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Spec that FIELDS names, checked against each other and its network: those that get another form,
    in it."""
    result: dict[str, Any] = {}
    result["dns"] = tuple(str(address(f"dns[{i}]", server)) for i, server in enumerate(fields["dns"]))
    result["add_hosts"] = _hosts(fields["add_hosts"])
    network = result["network"] = "bridge" if fields["ports"] and fields["network"] == "none" else fields["network"]
    for name in ("ports", "ip", "mac_address"):
        if fields[name] and not network_name(network):
            raise SpecError(name, None, f"is of no use with network={network}", "--network bridge")
    if network.startswith("container:") and (fields["dns"] or fields["add_hosts"]):
        raise SpecError("network", network, "has the names of that container", "leave --dns and --add-host out")
    if fields["ip"] is not None:
        if address("ip", fields["ip"]).version != 4:
            raise SpecError("ip", fields["ip"], "is no IPv4 address", "that of IPv6 comes of it")
        result["ip"] = str(address("ip", fields["ip"]))
    if fields["mac_address"] is not None:
        result["mac_address"] = _mac(fields["mac_address"])
    return result


def _hosts(given: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, where in given.items():
        if not HOSTNAME.fullmatch(text("add_hosts", name)):
            raise SpecError("add_hosts", name, "is no host name", "letters, digits, - _ and .")
        found[name] = where if where == HOST_GATEWAY else str(address("add_hosts", where))
    return found


def _mac(value: str) -> str:
    mac = text("mac_address", value).lower().replace("-", ":")
    if not MAC.fullmatch(mac):
        raise SpecError("mac_address", value, "is no hardware address", "six bytes: 02:00:00:00:00:01")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise SpecError("mac_address", value, "is not of one interface", "an even first byte: 02:00:00:00:00:01")
    return mac


def parse_add_host(items: tuple[str, ...]) -> dict[str, str]:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS`` of each; the address of IPv6 can be in brackets; ``host-gateway`` is the
    host."""
    found = {}
    for item in items:
        name, mark, where = re.fullmatch("([^:=]*)([:=]?)(.*)", text("add_hosts", item), re.DOTALL).groups()  # type: ignore[union-attr]
        if not mark:
            raise SpecError("add_hosts", item, "must be NAME:ADDRESS or NAME=ADDRESS", "such as db:10.88.0.7")
        found[name] = where[1:-1] if where.startswith("[") and where.endswith("]") else where
    return found

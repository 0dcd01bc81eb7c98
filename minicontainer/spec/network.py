"""The network options of a spec: published ports, addresses, host names; with parsers for docker's command-line
forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from minicontainer.errors import SpecError
from minicontainer.spec.convert import ReadOnly
from minicontainer.spec.values import error_context, network_name, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
    from typing import Any
else:
    from minicontainer.records import dataclass

PROTOCOLS = ("tcp", "udp")
PORT_MAX = 65535
HOST_GATEWAY = "host-gateway"  # in --add-host: the address at which the container reaches the host
HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
FIELDS = ("ports", "ip", "mac_address", "dns", "add_hosts")  # the fields of Spec for networks


@dataclass(frozen=True)
class Port:
    """A published port: the host's port ``host`` (0: a free one) at ``address`` is forwarded to the container's port
    ``number``. ``0.0.0.0`` is any IPv4 address of the host, ``::`` any IPv6 address, and "" any of both."""

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
            ip = address("port address", self.address)
            if isinstance(ip, IPv6Address):
                if ip.scope_id or ip.is_link_local:
                    raise SpecError("port address", self.address, "is of one link alone", "another address of the host")
                ip = ip.ipv4_mapped or ip
            object.__setattr__(self, "address", str(ip))

    @property
    def where(self) -> str:
        """Address and port of the host, as ``docker ps`` prints them."""
        printed = f"[{self.address}]" if ":" in self.address else self.address or "0.0.0.0"
        return f"{printed}:{self.host}"

    def __str__(self) -> str:
        return f"{self.where}->{self.number}/{self.protocol}"

    def meets(self, other: Port) -> bool:
        """Whether two ports conflict: they need the same port of the same address of the host."""
        if (self.host, self.protocol) != (other.host, other.protocol):
            return False
        if not (self.address and other.address):
            return True
        mine, its = ip_address(self.address), ip_address(other.address)
        return mine.version == its.version and (mine == its or mine.is_unspecified or its.is_unspecified)

    @classmethod
    def option(cls, value: str) -> tuple[Port, ...]:
        """docker's ``-p [[ip:][hostport]:]port[/udp]``; both ports can be ranges (``8000-8009:80-89``)."""
        ports, slash, protocol = text("publish", value).partition("/")
        on_host, _, inside = ports.rpartition(":")
        host, colon, outside = on_host.rpartition(":")
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
            return tuple(cls(number, port, kind, host) for number, port in zip(numbers, outer, strict=True))

    @classmethod
    def exposed(cls, value: str) -> tuple[Port, ...]:
        """docker's ``--expose port[-port][/udp]``: each port at a free port of the host."""
        if ":" in text("expose", value):
            raise SpecError("expose", value, "names no port of the host", "-p does")
        with error_context("expose", value):
            return cls.option(value)


def _range(value: str, ports: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", ports):
        raise SpecError("publish", value, f"{ports!r} is no port or range", "[ip:][hostport:]port[/udp]")
    first, _, last = ports.partition("-")
    numbers = list(range(int(first), int(last or first) + 1))
    if not numbers or numbers[0] < 1 or numbers[-1] > PORT_MAX:
        raise SpecError("publish", value, f"{ports!r} is not within 1 to {PORT_MAX}")
    return numbers


def address(what: str, value: object) -> IPv4Address | IPv6Address:
    """Parses an IP address. SpecError where the value is none."""
    try:
        return ip_address(text(what, value))
    except ValueError:
        raise SpecError(what, value, "is no IP address", "such as 10.88.0.7 or fd00::7") from None


def check_network(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the fields FIELDS of a Spec against each other and its network; returns the normalized ones."""
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


def _hosts(add_hosts: Mapping[str, str]) -> ReadOnly:
    hosts = {}
    for name, ip in add_hosts.items():
        if not HOSTNAME.fullmatch(text("add_hosts", name)):
            raise SpecError("add_hosts", name, "is no host name", "letters, digits, - _ and .")
        hosts[name] = ip if ip == HOST_GATEWAY else str(address("add_hosts", ip))
    return ReadOnly(hosts)


def _mac(value: str) -> str:
    mac = text("mac_address", value).lower().replace("-", ":")
    if not MAC.fullmatch(mac):
        raise SpecError("mac_address", value, "is no hardware address", "six bytes: 02:00:00:00:00:01")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise SpecError("mac_address", value, "is not of one interface", "an even first byte: 02:00:00:00:00:01")
    return mac


def parse_add_host(items: tuple[str, ...]) -> dict[str, str]:
    """docker's ``--add-host NAME:ADDRESS`` or ``NAME=ADDRESS``; an IPv6 address can be in brackets; ``host-gateway`` is
    the host."""
    hosts = {}
    for item in items:
        name, separator, ip = re.fullmatch("([^:=]*)([:=]?)(.*)", text("add_hosts", item), re.DOTALL).groups()  # type: ignore[union-attr]
        if not separator:
            raise SpecError("add_hosts", item, "must be NAME:ADDRESS or NAME=ADDRESS", "such as db:10.88.0.7")
        hosts[name] = ip[1:-1] if ip.startswith("[") and ip.endswith("]") else ip
    return hosts

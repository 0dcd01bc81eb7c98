"""The addresses of a guest on a user-space network, which nobody but the guest itself gives to its eth0: those of
slirp4netns --configure, with IPv4 alone."""

from __future__ import annotations

import _struct as struct  # struct is a module of Python that imports it

from minicontainer import plan as p
from minicontainer.native import lib
from minicontainer.plan import Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.plan import Builder

INTERFACE = "eth0"
ADDRESS, PREFIX, NETMASK, GATEWAY = "10.0.2.100", 24, "255.255.255.0", "10.0.2.2"
MTU = 65520  # as slirp4netns and pasta have it in containers
PASTA = ("-4", "-a", ADDRESS, "-n", str(PREFIX), "-g", GATEWAY)  # options of pasta


def socket(b: Builder) -> Slot:
    """A socket for requests of netdevice(7)."""
    slot = Slot("socket")
    b.add(p.call("socket", p.const("AF_INET"), p.const("SOCK_DGRAM|SOCK_CLOEXEC"), 0, into=slot))
    return slot


def request(sock: Slot, name: str, value: bytes, text: str) -> p.Step:
    """ioctl(2) with a struct ifreq of eth0."""
    content = struct.pack("=16s24s", INTERFACE.encode(), value)
    return p.call("ioctl", sock, p.const(name), p.Struct(content, f"{{{INTERFACE}, {text}}}"))


def up(sock: Slot) -> p.Step:
    """Brings eth0 up."""
    return request(sock, "SIOCSIFFLAGS", struct.pack("=H", lib.IFF_UP | lib.IFF_MULTICAST), "IFF_UP|IFF_MULTICAST")


def configure(b: Builder) -> None:
    """Brings eth0 up, with its IPv4 address and the default route."""
    b.phase = "network"
    sock = socket(b)
    b.add(request(sock, "SIOCSIFADDR", _address(ADDRESS), ADDRESS))
    b.add(request(sock, "SIOCSIFNETMASK", _address(NETMASK), NETMASK))
    b.add(up(sock))
    any_address = _address("0.0.0.0")
    flags = lib.RTF_UP | lib.RTF_GATEWAY
    route = struct.pack("=8x16s16s16sH62x", any_address, _address(GATEWAY), any_address, flags)  # struct rtentry
    b.add(p.call("ioctl", sock, p.const("SIOCADDRT"), p.Struct(route, f"{{default, {GATEWAY}}}")), p.close(sock))


def _address(text: str) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=HH4s8x", lib.AF_INET, 0, bytes(map(int, text.split("."))))

"""``Network``: the content of a network's config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from minicontainer import runtime
from minicontainer.errors import Error
from minicontainer.linux.rtnetlink import Message

VERSION = 1


class CorruptNetworkError(Error):
    """A network whose file cannot be read. It can be removed."""


def loopback6(address: IPv6Address) -> IPv6Address:
    """The host's address that replaces ::1 on the network of ``address`` (firewall.py): the second of its /64."""
    return IPv6Address(int(address) >> 64 << 64 | 2)


@dataclass(frozen=True)
class Network:
    """One network.

    interface  the name of the bridge; ``index`` is its interface index
    gateway    the host's IPv4 address on the bridge; the IPv6 gateway is the first address of ``subnet6``
    internal   the network has no route to the outside
    created    seconds since 1970
    messages   the rtnetlink(7) messages that connect a member, by name; they contain ``index``
    """

    name: str
    interface: str
    subnet: IPv4Network
    gateway: IPv4Address
    subnet6: IPv6Network | None
    internal: bool
    created: float
    index: int = 0
    messages: tuple[tuple[str, Message], ...] = ()

    @property
    def gateway6(self) -> IPv6Address | None:
        """The host's IPv6 address."""
        return None if self.subnet6 is None else self.subnet6[1]

    @property
    def loopback6(self) -> IPv6Address | None:
        """The host's second IPv6 address, which replaces ::1 (``loopback6``)."""
        return None if self.gateway6 is None else loopback6(self.gateway6)

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """The IPv6 address of the member with this IPv4 address, which is its last 32 bits."""
        return None if self.subnet6 is None else IPv6Address(int(self.subnet6.network_address) | int(address))

    def to_json(self) -> str:
        """The content of config.json."""
        plain = {
            key: str(value) if key.startswith(("subnet", "gateway")) else value for key, value in vars(self).items()
        }
        plain["subnet6"] = None if self.subnet6 is None else str(self.subnet6)
        plain["messages"] = {name: [message.data.hex(), *message.places] for name, message in self.messages}
        return json.dumps({"version": VERSION, **plain})

    @classmethod
    def from_json(cls, text: str) -> Network:
        """Parses config.json. CorruptNetworkError."""
        try:
            data = runtime.parse_object(text)
            if data.pop("version") != VERSION:
                raise CorruptNetworkError("config.json: was written by another version of minicontainer")
            data["subnet"], data["gateway"] = IPv4Network(data["subnet"]), IPv4Address(data["gateway"])
            data["subnet6"] = None if data["subnet6"] is None else IPv6Network(data["subnet6"])
            messages = data["messages"].items()
            data["messages"] = tuple(
                (name, Message(bytes.fromhex(items[0]), tuple(items[1:]))) for name, items in messages
            )
            runtime.typed(bool, data["internal"])
            runtime.integer(int(data["created"]))
            runtime.integer(data["index"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise CorruptNetworkError(f"config.json: cannot be read: {e}") from None

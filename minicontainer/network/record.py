"""A network as its file says it."""

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


def near(address: IPv6Address) -> IPv6Address:
    """What stands for the host's ::1 on the network of an address (firewall.py): the second of its 64 bits."""
    return IPv6Address(int(address) >> 64 << 64 | 2)


@dataclass(frozen=True)
class Network:
    """One network.

    interface  the bridge, and ``index`` its number
    gateway    the host's address on it; that of IPv6 is the first of ``subnet6``
    internal   no way leads out of it
    created    seconds since 1970
    messages   of rtnetlink(7), by name: what joining takes; they name the bridge by number
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
        """The host's address of IPv6."""
        return None if self.subnet6 is None else self.subnet6[1]

    @property
    def near(self) -> IPv6Address | None:
        """The host's other address of IPv6, which stands for its ::1 (``near``)."""
        return None if self.gateway6 is None else near(self.gateway6)

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """The address of IPv6 that goes with one of IPv4: it ends with that."""
        return None if self.subnet6 is None else IPv6Address(int(self.subnet6.network_address) | int(address))

    def to_json(self) -> str:
        """As the file holds it."""
        plain = {
            key: str(value) if key.startswith(("subnet", "gateway")) else value for key, value in vars(self).items()
        }
        plain["subnet6"] = None if self.subnet6 is None else str(self.subnet6)
        plain["messages"] = {name: [message.data.hex(), *message.places] for name, message in self.messages}
        return json.dumps({"version": VERSION, **plain})

    @classmethod
    def from_json(cls, text: str) -> Network:
        """The network again. CorruptNetworkError where it is none."""
        try:
            data = runtime.parsed(text)
            if data.pop("version") != VERSION:
                raise CorruptNetworkError("config.json: was written by another version of minicontainer")
            data["subnet"], data["gateway"] = IPv4Network(data["subnet"]), IPv4Address(data["gateway"])
            data["subnet6"] = None if data["subnet6"] is None else IPv6Network(data["subnet6"])
            messages = data["messages"].items()
            data["messages"] = tuple(
                (name, Message(bytes.fromhex(words[0]), tuple(words[1:]))) for name, words in messages
            )
            runtime.of(bool, data["internal"])
            runtime.whole(int(data["created"]))
            runtime.whole(data["index"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise CorruptNetworkError(f"config.json: cannot be read: {e}") from None

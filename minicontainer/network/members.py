"""Who is on a network: the files of leases, as anybody can read them."""

from __future__ import annotations

import fcntl
import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from minicontainer import runtime
from minicontainer.errors import SpecError
from minicontainer.network import firewall, hosts, store
from minicontainer.network.firewall import Element
from minicontainer.spec import Port


class Record(NamedTuple):
    """What the file of a lease says: whose it is, its names, its published ports, its lines in the hosts files; ``six``
    is its address of IPv6, ``cgroup`` the path of its container's ("": it has none)."""

    owner: str
    address: IPv4Address
    names: str
    ports: tuple[Port, ...] = ()
    lines: tuple[int, ...] = ()
    private: bool = False
    six: IPv6Address | None = None
    cgroup: str = ""

    @property
    def who(self) -> str:
        """In words: the id, which commands take, and the first of its names."""
        first = self.names.split()[0]
        return f"container {self.owner}" + (f" ({first})" if first != self.owner else "")

    @property
    def elements(self) -> list[Element]:
        """Its ports, as the table has them."""
        return [element for port in self.ports for element in firewall.elements_of(port, self.address, self.six)]

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        shown = [vars(port) for port in self.ports]
        six = str(self.six) if self.six else None
        return {**self._asdict(), "address": str(self.address), "six": six, "ports": shown, "lines": list(self.lines)}

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The record again. ValueError where it is none."""
        try:
            data = runtime.parsed(text)
            data["address"] = IPv4Address(data["address"])
            data["six"] = IPv6Address(data["six"]) if data["six"] else None
            data["ports"] = tuple(Port(**port) for port in data["ports"])
            data["lines"] = tuple(map(runtime.whole, data["lines"]))
            if not runtime.of(str, data["names"]).split():
                raise ValueError("it has no name")
            runtime.of(str, data["owner"])
            runtime.of(str, data.get("cgroup", ""))
            return cls(**data)
        except (KeyError, TypeError, AttributeError, SpecError) as e:
            raise ValueError(f"no lease: {e}") from None


def of(name: str) -> list[Record]:
    """The leases on a network, by address."""
    try:
        listed = os.listdir(store.path(name, "leases"))
    except FileNotFoundError:
        return []
    found = (at(store.path(name, "leases", address)) for address in listed)  # None: it ends, or is being made
    return sorted((record for record in found if record is not None), key=lambda record: record.address)


def at(path: str) -> Record | None:
    """What the file of a lease says; None where there is none."""
    try:
        return Record.from_json(runtime.read(path))
    except (OSError, ValueError):
        return None


def names_at(path: str) -> str:
    """The content of the hosts file that goes with the file of a lease. OSError where there is none; Error where it is
    none of ours."""
    directory, _, address = path.rpartition("/leases/")
    record = at(path)
    name = address if record is not None and record.private else hosts.SHARED
    fd = os.open(f"{directory}/hosts", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = hosts.read(fd, name).decode()
        if "\0" in text:
            raise hosts.refused(fd, name, ValueError("holds a NUL byte"))
        return text
    finally:
        os.close(fd)


def published() -> list[Element]:
    """Every published port, of every network, of those who live."""
    return [
        element
        for name in store.names()
        for record in of(name)
        if record.ports and not is_dead(store.path(name, "leases", str(record.address)))
        for element in record.elements
    ]


def publisher(port: Port) -> str:
    """Who has published a port of the host that ``port`` wants; "" where none of ours has."""
    for name in store.names():
        for record in of(name):
            for other in record.ports:
                if other.meets(port):
                    return record.who
    return ""


def owner(name: str, address: IPv4Address) -> str:
    """Who has an address of a network, in words."""
    found = [record.who for record in of(name) if record.address == address]
    return found[0] if found else "another"


def is_dead(path: str) -> bool:
    """Whether the owner of a lease, by its file, was killed."""
    try:
        fd = runtime.opened(path)
    except (OSError, ValueError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def dead() -> list[str]:
    """Paths of the leases whose owner was killed."""
    found = []
    for name in store.names():
        with store.changing(name):
            leases = os.listdir(store.path(name, "leases")) if os.path.isdir(store.path(name, "leases")) else []
            found += [path for path in (store.path(name, "leases", lease) for lease in leases) if is_dead(path)]
    return found

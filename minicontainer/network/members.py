"""The members of a network: reads the lease files, without locks."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from minicontainer import runtime
from minicontainer.errors import SpecError
from minicontainer.network import firewall, hosts, store
from minicontainer.network.firewall import Element
from minicontainer.spec import Port


class Record(NamedTuple):
    """The content of a lease file. ``owner``: the container's short id; ``names``: separated by blanks; ``ports``:
    published; ``lines``: offsets in the hosts files; ``private``: the member has a hosts file of its own; ``six``: the
    IPv6 address; ``cgroup``: the path of the container's cgroup, "" without one."""

    owner: str
    address: IPv4Address
    names: str
    ports: tuple[Port, ...] = ()
    lines: tuple[int, ...] = ()
    private: bool = False
    six: IPv6Address | None = None
    cgroup: str = ""

    @property
    def description(self) -> str:
        """For messages: the id, which commands accept, and the first name."""
        first = self.names.split()[0]
        return f"container {self.owner}" + (f" ({first})" if first != self.owner else "")

    @property
    def elements(self) -> list[Element]:
        """The ports as elements of the nftables maps."""
        return [element for port in self.ports for element in firewall.elements_of(port, self.address, self.six)]

    def to_data(self) -> dict[str, Any]:
        """The record as JSON data."""
        ports = [vars(port) for port in self.ports]
        six = str(self.six) if self.six else None
        return {**self._asdict(), "address": str(self.address), "six": six, "ports": ports, "lines": list(self.lines)}

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Parses a lease file. ValueError."""
        try:
            data = runtime.parse_object(text)
            data["address"] = IPv4Address(data["address"])
            data["six"] = IPv6Address(data["six"]) if data["six"] else None
            data["ports"] = tuple(Port(**port) for port in data["ports"])
            data["lines"] = tuple(map(runtime.integer, data["lines"]))
            if not runtime.typed(str, data["names"]).split():
                raise ValueError("it has no name")
            runtime.typed(str, data["owner"])
            runtime.typed(str, data.get("cgroup", ""))
            return cls(**data)
        except (KeyError, TypeError, AttributeError, SpecError) as e:
            raise ValueError(f"no lease: {e}") from None


def addresses(name: str) -> list[str]:
    """The names of the lease files of a network: addresses. Files of other names are no leases. FileNotFoundError."""
    return [file for file in os.listdir(store.path(name, "leases")) if _is_address(file)]


def _is_address(text: str) -> bool:
    try:
        return str(IPv4Address(text)) == text
    except ValueError:
        return False


def of(name: str) -> list[Record]:
    """The leases of a network, by address."""
    try:
        listed = addresses(name)
    except FileNotFoundError:
        return []
    records = (at(store.path(name, "leases", address)) for address in listed)  # None: being taken or released
    return sorted((record for record in records if record is not None), key=lambda record: record.address)


def at(path: str) -> Record | None:
    """Reads a lease file; None if it is missing or invalid."""
    try:
        return Record.from_json(runtime.read(path))
    except (OSError, ValueError):
        return None


def names_at(path: str) -> str:
    """The content of the hosts file of a lease. OSError if it is missing; Error if it is invalid."""
    directory, _, address = path.rpartition("/leases/")
    record = at(path)
    name = address if record is not None and record.private else hosts.SHARED
    fd = os.open(f"{directory}/hosts", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = hosts.read(fd, name).decode()
        if "\0" in text:
            raise hosts.invalid_file(fd, name, ValueError("holds a NUL byte"))
        return text
    finally:
        os.close(fd)


def published() -> list[Element]:
    """Every published port of every live lease."""
    return [
        element
        for name in store.names()
        for record in of(name)
        if record.ports and not is_dead(store.path(name, "leases", str(record.address)))
        for element in record.elements
    ]


def publisher(port: Port) -> str:
    """The member that has published a port of the host that conflicts with ``port``, for messages; "" if none has."""
    for name in store.names():
        for record in of(name):
            for other in record.ports:
                if other.meets(port):
                    return record.description
    return ""


def owner(name: str, address: IPv4Address) -> str:
    """The member that has an address, for messages."""
    descriptions = [record.description for record in of(name) if record.address == address]
    return descriptions[0] if descriptions else "another"


def is_dead(path: str) -> bool:
    """Whether the owner of a lease file was killed: no process holds its lock."""
    try:
        fd = runtime.open_regular(path)
    except (OSError, ValueError):
        return False
    return runtime.is_unlocked(fd)


def dead() -> list[str]:
    """Paths of the lease files whose owner was killed."""
    paths = []
    for name in store.names():
        with store.lease_lock(name):
            leases = addresses(name) if os.path.isdir(store.path(name, "leases")) else []
            paths += [path for path in (store.path(name, "leases", lease) for lease in leases) if is_dead(path)]
    return paths

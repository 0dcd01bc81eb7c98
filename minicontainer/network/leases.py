"""What who joins a network gets of it: an address that nobody else has, names, published ports.

Theory of operation. A lease is a file, ``leases/IP``, with a lock (flock(2)) that its owner holds: who dies gives up
the lock, and with it the lease, whatever the file says. Its end is a plan (``Lease.ending``): the published ports are
taken out of the table, its connections forgotten, its names out of the hosts files, its file removed. It is walked by
who made the lease, or by a container's monitor; and by who finds the file of a dead owner (``reclaim``).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from minicontainer import plan as p
from minicontainer.errors import SpecError, StepError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.linux.nfnetlink import end_connections
from minicontainer.native import lib, now
from minicontainer.netsteps import forget, netlink
from minicontainer.network import firewall, hosts, ports, store
from minicontainer.network.firewall import Element
from minicontainer.network.record import CorruptNetworkError, Network
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.spawn import walk
from minicontainer.spec import Port
from minicontainer.spec.network import HOST_GATEWAY

Note = Callable[[str, int], None]  # told of each primitive: the call, when it began (nanoseconds)


class Record(NamedTuple):
    """What the file of a lease says: whose it is, its names, its published ports, its lines in the hosts files."""

    owner: str
    address: IPv4Address
    names: str
    ports: tuple[Port, ...] = ()
    lines: tuple[int, ...] = ()
    private: bool = False

    @property
    def elements(self) -> list[Element]:
        """Its ports, as the table has them."""
        return [
            Element(IPv4Address(q.address) if q.address else None, q.protocol, q.host, self.address, q.number)
            for q in self.ports
        ]

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        shown = [vars(port) for port in self.ports]
        return {**self._asdict(), "address": str(self.address), "ports": shown, "lines": list(self.lines)}

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The record again. ValueError where it is none."""
        try:
            data = json.loads(text)
            data["address"] = IPv4Address(data["address"])
            data["ports"] = tuple(Port(**port) for port in data["ports"])
            data["lines"] = tuple(map(int, data["lines"]))
            return cls(**data)
        except (KeyError, TypeError, AttributeError, SpecError) as e:
            raise ValueError(f"no lease: {e}") from None


class Lease:
    """One, as long as its owner holds it. ``fds`` are its locks and sockets; ``inputs`` what ``ending`` takes."""

    __slots__ = ("ending", "fds", "hosts", "inputs", "network", "path", "record")

    def __init__(self, network: Network, record: Record, fds: list[int]) -> None:
        self.network, self.record, self.fds = network, record, fds
        self.path = store.path(network.name, "leases", str(record.address))
        self.hosts = store.path(network.name, "hosts", str(record.address) if record.private else hosts.SHARED)
        self.ending = ending(record)
        self.inputs: dict[str, int] = {}

    @property
    def number(self) -> int:
        """Its address as a plan's slot has it: the four bytes, in the order of the network."""
        return int.from_bytes(self.record.address.packed, _order(), signed=True)

    def open(self) -> None:
        """Opens what its end takes."""
        for name in ("leases", "hosts"):
            directory = store.path(self.network.name, name)
            self.inputs[name] = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.fds.append(self.inputs[name])

    def open_hosts(self) -> int:
        """The hosts file (O_PATH), for as long as the lease."""
        self.fds.append(os.open(self.hosts, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW))
        return self.fds[-1]

    def for_another(self) -> dict[str, int]:
        """The inputs of its end, for who will walk it instead: with a socket of its own."""
        self.inputs["netfilter"] = open_netfilter()
        self.fds.append(self.inputs["netfilter"])
        return self.inputs

    def held(self) -> list[int]:
        """The locks and sockets that make it last: who has them has it."""
        return [fd for fd in self.fds if fd not in self.inputs.values()]

    def release(self) -> list[tuple[str, int, int, int]]:
        """Gives all of it back; what was done: call, start, end, result."""
        try:
            return _walk(self.ending, self.inputs)
        finally:
            self.leave()

    def leave(self) -> None:
        """Leaves it to who else has its descriptors."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)


def _order() -> Any:
    import sys

    return sys.byteorder


def ending(record: Record) -> Plan:
    """The end of a lease. Inputs: the directories ``leases`` and ``hosts``, and a socket ``netfilter``."""
    b = Builder()
    leases, names, sock = b.input("leases"), b.input("hosts"), b.input("netfilter")
    b.phase = "network"
    for element in record.elements:
        told = firewall.removed(element)
        b.add(netlink(sock, told, f"NFT_MSG_DELSETELEM {element.map} {element}")._replace(tolerate=firewall.GONE))
    told = end_connections(record.address)
    b.add(netlink(sock, told, f"IPCTNL_MSG_CT_DELETE {record.address}")._replace(tolerate=NO_CONNECTIONS))
    b.add(*(forget(names, line) for line in record.lines))
    if record.private:
        b.add(p.call("unlinkat", names, str(record.address), 0, tolerate=(errno.ENOENT,)))
    b.add(p.call("unlinkat", leases, str(record.address), 0, tolerate=(errno.ENOENT,)))
    return b.plan()


NO_CONNECTIONS = (errno.ENOENT, errno.EINVAL)  # none, or Linux before 6.9


_sockets: list[tuple[int, int]] = []  # of netfilter, with who opened it, kept: to close one takes 20 ms after a change


def _walk(plan: Plan, inputs: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Walks a plan here, with a socket of netfilter that nobody else has meanwhile."""
    pid, fd = _sockets.pop() if _sockets else (os.getpid(), open_netfilter())
    if pid != os.getpid():  # that of the process which we were forked from
        os.close(fd)
        pid, fd = os.getpid(), open_netfilter()
    try:
        return walk(plan, {**inputs, "netfilter": fd})
    finally:
        _sockets.append((pid, fd))


def open_netfilter() -> int:
    """socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)."""
    import socket

    return socket.socket(lib.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, lib.NETLINK_NETFILTER).detach()


# ---- taking one


class Wish(NamedTuple):
    """What is wanted: whose it is, the names (blanks between them), and what of it was said."""

    owner: str
    names: str
    address: str | None = None
    ports: tuple[Port, ...] = ()
    add_hosts: Mapping[str, str] = {}


def take(network: Network, wish: Wish, note: Note) -> Lease:
    """A lease, held by this process. UnsupportedError: no address is free; SpecError: what was asked for is taken."""
    with ExitStack() as undo, store.locked(exclusive=False), store.changing(network.name):
        fds: list[int] = []
        undo.callback(_close, fds)
        begin = now()
        address = _take_address(network, wish.address, fds)
        note(f"lock {address}", begin)
        undo.callback(os.unlink, store.path(network.name, "leases", str(address)))
        failpoint("address taken")
        held = ports.hold(wish.ports, fds)
        record = Record(wish.owner, address, wish.names, held, (), bool(wish.add_hosts))
        _write(network, fds[0], record)
        failpoint("ports held")
        lease = _complete(network, record, fds, wish, note)
        undo.pop_all()
        return lease


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _complete(network: Network, record: Record, fds: list[int], wish: Wish, note: Note) -> Lease:
    lease = Lease(network, record, fds)
    lease.open()
    try:
        lines = _enter_names(network, lease, wish, note)
        lease.record = record = record._replace(lines=lines)
        lease.ending = ending(record)
        _write(network, fds[0], record)
        failpoint("names entered")
        _publish(record, note)
        failpoint("ports published")
    except BaseException:
        _walk(lease.ending, lease.inputs)
        raise
    return lease


def _take_address(network: Network, wish: str | None, fds: list[int]) -> IPv4Address:
    """A free one; ``fds`` gets its locked file."""
    if wish is not None:
        address = IPv4Address(wish)
        if address not in network.subnet or address in (network.subnet[0], network.subnet[-1]):
            raise SpecError("ip", wish, f"is no host's address of {network.subnet} (network {network.name})")
        if address == network.gateway:
            raise SpecError("ip", wish, "is the host's own")
        if not (_claim(network, address, fds) or _reclaim_one(network, address, fds)):
            raise SpecError("ip", wish, f"is taken by {_owner(network, address)}")
        return address
    known = set(os.listdir(store.path(network.name, "leases")))
    for address in _in_turn(network):
        if str(address) not in known and _claim(network, address, fds):
            _remember(network, address)
            return address
    for text in sorted(known):
        if _reclaim_one(network, IPv4Address(text), fds):
            return IPv4Address(text)
    reason = f"all {network.subnet.num_addresses - 3} addresses of {network.subnet} are taken"
    raise UnsupportedError("network", network.name, reason, "another network, with a larger --subnet")


def _in_turn(network: Network) -> Iterator[IPv4Address]:
    """From the one after the last on, so that one which was just given back is not given out at once."""
    first, count = int(network.subnet[1]), network.subnet.num_addresses - 2
    try:
        with open(store.path(network.name, "last"), encoding="ascii") as f:
            last = int(IPv4Address(f.read().strip())) - first + 1
    except (OSError, ValueError):
        last = 0
    for i in range(count):
        address = IPv4Address(first + (last + i) % count)
        if address != network.gateway:
            yield address


def _remember(network: Network, address: IPv4Address) -> None:
    with open(store.path(network.name, "last"), "w", encoding="ascii") as f:
        f.write(str(address))


def _claim(network: Network, address: IPv4Address, fds: list[int]) -> bool:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(store.path(network.name, "leases", str(address)), flags, 0o600)
    except FileExistsError:
        return False
    fds.append(fd)
    fcntl.flock(fd, fcntl.LOCK_EX)  # at once, but for who looks whether its owner is dead
    return True


def _reclaim_one(network: Network, address: IPv4Address, fds: list[int]) -> bool:
    return _end_if_dead(network.name, str(address)) and _claim(network, address, fds)


def _enter_names(network: Network, lease: Lease, wish: Wish, note: Note) -> tuple[int, ...]:
    begin, directory, address = now(), lease.inputs["hosts"], lease.record.address
    six = network.address6(address)
    lines = [hosts.add(directory, str(one), wish.names) for one in (address, six) if one is not None]
    if wish.add_hosts:
        hosts.make(directory, str(address))
        for name, where in wish.add_hosts.items():
            given = str(network.gateway) if where == HOST_GATEWAY else where
            lines.append(hosts.add(directory, given, name, only=str(address)))
    note(f"pwrite(hosts, {address} {wish.names})", begin)
    return tuple(lines)


def _write(network: Network, fd: int, record: Record) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(record.to_data()).encode(), 0)


def _publish(record: Record, note: Note) -> None:
    """Adds its ports to the table; what somebody took away, or a dead owner left there, is made again."""
    for map_ in ("published", "published_at"):
        chosen = [element for element in record.elements if element.map == map_]
        if chosen:
            _add(map_, chosen, note)


def _add(map_: str, chosen: list[Element], note: Note) -> None:
    shown = f"NFT_MSG_NEWSETELEM {map_} {', '.join(map(str, chosen))}"
    plan = Plan([netlink(Slot("netfilter"), firewall.added(map_, chosen), shown)], ["netfilter"])
    ((call, start, _, result),) = _walk(plan, {})
    note(call, start)
    if result in (-errno.ENOENT, -errno.EEXIST):
        begin = now()
        firewall.load(store.whole(), published())  # these too: their lease is written
        note("nftables: the table is made again", begin)
    elif result < 0:
        raise StepError(-result, f"netlink({{{shown}}})")


# ---- all of them


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
        with open(path, encoding="utf-8") as f:
            return Record.from_json(f.read())
    except (OSError, ValueError):
        return None


def published() -> list[Element]:
    """Every published port, of every network, of those who live."""
    return [
        element
        for name in store.names()
        for record in of(name)
        if record.ports and not _is_dead(store.path(name, "leases", str(record.address)))
        for element in record.elements
    ]


def publisher(port: Port) -> str:
    """Who has published a port of the host that ``port`` wants; "" where none of ours has."""
    for name in store.names():
        for record in of(name):
            for other in record.ports:
                meet = not (other.address and port.address) or other.address == port.address
                if (other.host, other.protocol) == (port.host, port.protocol) and meet:
                    return f"container {record.names.split()[0]}"
    return ""


def _owner(network: Network, address: IPv4Address) -> str:
    found = [record.names.split()[0] for record in of(network.name) if record.address == address]
    return found[0] if found else "another"


# ---- of the dead


def dead() -> list[str]:
    """Paths of the leases whose owner was killed."""
    found = []
    for name in store.names():
        with store.changing(name):
            leases = os.listdir(store.path(name, "leases")) if os.path.isdir(store.path(name, "leases")) else []
            found += [path for path in (store.path(name, "leases", lease) for lease in leases) if _is_dead(path)]
    return found


def _is_dead(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def reclaim(name: str) -> None:
    """Ends every lease of a network whose owner was killed."""
    if not os.path.isdir(store.path(name, "leases")):
        return
    with store.changing(name):
        for address in os.listdir(store.path(name, "leases")):
            _end_if_dead(name, address)


def end_dead(path: str) -> bool:
    """Ends the lease of that file, where its owner was killed."""
    name, _, address = path.removeprefix(f"{store.directory()}/").partition("/leases/")
    try:
        with store.changing(name):
            return _end_if_dead(name, address)
    except LookupError:
        return False


def _end_if_dead(name: str, address: str) -> bool:
    """Under the network's lock."""
    path = store.path(name, "leases", address)
    if not _is_dead(path):
        return False
    record = at(path) or Record("", IPv4Address(address), "", private=True)  # it was being made
    with ExitStack() as stack:
        inputs = {}
        for part in ("leases", "hosts"):
            inputs[part] = os.open(store.path(name, part), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, inputs[part])
        _walk(ending(record._replace(lines=_lines(name, inputs["hosts"], record.address))), inputs)
    return True


def _lines(name: str, directory: int, address: IPv4Address) -> tuple[int, ...]:
    """Those of an address, whatever its record says."""
    try:
        six = store.read(name).address6(address)
        return tuple(at for one in (address, six) if one for at in hosts.lines_of(directory, str(one)))
    except (OSError, CorruptNetworkError, store.NoNetworkError):
        return ()  # the network goes too

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
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import NamedTuple

from minicontainer import runtime
from minicontainer.errors import SpecError, StepError, UnsupportedError
from minicontainer.failpoint import failpoint
from minicontainer.native import now
from minicontainer.network import firewall, hosts, members, ports, release, store
from minicontainer.network.firewall import Element
from minicontainer.network.members import Record
from minicontainer.network.record import Network
from minicontainer.network.release import Note, end_if_dead, ending, open_netfilter, walk_here
from minicontainer.plan import Plan, Slot
from minicontainer.plan.netlink import netlink
from minicontainer.spec import Port
from minicontainer.spec.network import HOST_GATEWAY


class Lease:
    """One, as long as its owner holds it. ``fds`` are its locks and sockets; ``inputs`` what ``ending`` takes."""

    __slots__ = ("ending", "fds", "inputs", "network", "path", "record")

    def __init__(self, network: Network, record: Record, fds: list[int]) -> None:
        self.network, self.record, self.fds = network, record, fds
        self.path = store.path(network.name, "leases", str(record.address))
        self.ending = ending(record)
        self.inputs: dict[str, int] = {}

    @property
    def number(self) -> int:
        """Its address as a plan's slot has it: the four bytes, in the order of the network."""
        return int.from_bytes(self.record.address.packed, sys.byteorder, signed=True)

    def open(self) -> None:
        """Opens what its end takes."""
        for name in ("leases", "hosts"):
            directory = store.path(self.network.name, name)
            self.inputs[name] = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.fds.append(self.inputs[name])
        self.fds.append(hosts.hold(self.inputs["hosts"]))

    def open_hosts(self) -> int:
        """The hosts file, open for writing as long as the lease (hosts.py)."""
        if self.record.private:
            self.fds.append(hosts.to_write(self.inputs["hosts"], str(self.record.address)))
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
            return walk_here(self.ending, self.inputs)
        finally:
            self.leave()

    def leave(self) -> None:
        """Leaves it to who else has its descriptors."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)


# ---- taking one


class Wish(NamedTuple):
    """What is wanted: whose it is, the names (blanks between them), and what of it was said; the ``cgroup`` in which it
    can be ended."""

    owner: str
    names: str
    address: str | None = None
    ports: tuple[Port, ...] = ()
    add_hosts: Mapping[str, str] = {}
    cgroup: str = ""


def take(network: Network, wish: Wish, note: Note) -> Lease:
    """A lease, held by this process. UnsupportedError: no address is free; SpecError: what was asked for is taken."""
    with ExitStack() as undo, store.locked(exclusive=False), store.changing(network.name):
        fds: list[int] = []
        undo.callback(_close, fds)
        begin = now()
        address = _take_address(network, wish.address, fds)
        note(f"lock {address}", begin)
        undo.callback(_unlink, store.path(network.name, "leases", str(address)))
        if wish.address is None:
            _remember(network, address)
        failpoint("address taken")
        held = ports.hold(wish.ports, fds, ipv6=network.subnet6 is not None)
        record = Record(
            wish.owner, address, wish.names, held, (), bool(wish.add_hosts), network.address6(address), wish.cgroup
        )
        _write(network, fds[0], record)
        failpoint("ports held")
        lease = _complete(network, record, fds, wish, note)
        undo.pop_all()
        return lease


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # its end was walked


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
        known = hosts.lines_of(lease.inputs["hosts"], str(record.address))
        if record.six is not None:
            known += hosts.lines_of(lease.inputs["hosts"], str(record.six))
        walk_here(ending(record._replace(lines=tuple(known))), lease.inputs)
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
            raise SpecError("ip", wish, f"is taken by {members.owner(network.name, address)}")
        return address
    known = set(os.listdir(store.path(network.name, "leases")))
    for address in _in_turn(network):
        if str(address) not in known and _claim(network, address, fds):
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
        last = int(IPv4Address(runtime.read(store.path(network.name, "last")).strip())) - first + 1
    except (OSError, ValueError):
        last = 0
    for i in range(count):
        address = IPv4Address(first + (last + i) % count)
        if address != network.gateway:
            yield address


def _remember(network: Network, address: IPv4Address) -> None:
    path = store.path(network.name, "last")
    try:
        fd = runtime.opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    except ValueError as e:
        raise UnsupportedError("network", network.name, f"{path} {e}", "remove it") from None
    try:
        _overwrite(fd, str(address).encode(), path)
    finally:
        os.close(fd)


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
    return end_if_dead(network.name, str(address)) and _claim(network, address, fds)


def _enter_names(network: Network, lease: Lease, wish: Wish, note: Note) -> tuple[int, ...]:
    begin, directory, address = now(), lease.inputs["hosts"], lease.record.address
    lines = [hosts.add(directory, str(one), wish.names) for one in (address, lease.record.six) if one is not None]
    if wish.add_hosts:
        hosts.make(directory, str(address))
        for name, where in wish.add_hosts.items():
            given = str(network.gateway) if where == HOST_GATEWAY else where
            lines.append(hosts.add(directory, given, name, only=str(address)))
    note(f"pwrite(hosts, {address} {wish.names})", begin)
    return tuple(lines)


def _write(network: Network, fd: int, record: Record) -> None:
    data = json.dumps(record.to_data()).encode()
    _overwrite(fd, data, store.path(network.name, "leases", str(record.address)))


def _overwrite(fd: int, data: bytes, path: str) -> None:
    try:
        os.ftruncate(fd, 0)
        if os.pwrite(fd, data, 0) == len(data):
            return
        reason = errno.ENOSPC
    except OSError as e:
        reason = e.errno or 0
    raise StepError(reason, f"write({path!r})")


def _publish(record: Record, note: Note) -> None:
    """Adds its ports to the table; what somebody took away, or a dead owner left there, is made again."""
    for map_ in firewall.MAPS:
        chosen = [element for element in record.elements if element.map == map_]
        if chosen and not _add(map_, chosen, note):
            break  # all are there by now
    release.forget_flows(record.elements, note)


def _add(map_: str, chosen: list[Element], note: Note) -> bool:
    """Whether these were added; else all were, with the table."""
    shown = f"NFT_MSG_NEWSETELEM {map_} {', '.join(map(str, chosen))}"
    plan = Plan([netlink(Slot("netfilter"), firewall.added(map_, chosen), shown)], ["netfilter"])
    ((call, start, _, result),) = walk_here(plan, {})
    note(call, start)
    if result in (-errno.ENOENT, -errno.EEXIST):
        begin = now()
        ports = members.published()  # these too: their lease is written
        firewall.load(store.whole(), ports)
        note("nftables: the table is made again", begin)
        release.forget_flows(ports, note)
        return False
    if result < 0:
        raise StepError(-result, f"netlink({{{shown}}})")
    return True

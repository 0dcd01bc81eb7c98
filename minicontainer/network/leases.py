"""Leases: the address, the names and the published ports of a member of a network.

Theory of operation. A lease is a file, ``leases/IP``, on which its owner holds a flock(2): the death of the owner ends
the lease. A plan releases it (``Lease.release_plan``): it removes the published ports from the nftables map, the
tracked connections, the names in the hosts files, and the lease file. The owner or the container's monitor
walks the plan; for a dead owner, the process that finds the lease file (``release.reclaim``)."""

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
from minicontainer.network.release import Observe, open_netfilter, release_if_dead, release_plan, walk_here
from minicontainer.plan import Plan, Slot
from minicontainer.plan.netlink import netlink
from minicontainer.spec import Port
from minicontainer.spec.network import HOST_GATEWAY


class Lease:
    """One lease. ``fds`` are its locks and sockets; ``inputs`` are the inputs of ``release_plan``."""

    __slots__ = ("fds", "inputs", "network", "path", "record", "release_plan")

    def __init__(self, network: Network, record: Record, fds: list[int]) -> None:
        self.network, self.record, self.fds = network, record, fds
        self.path = store.path(network.name, "leases", str(record.address))
        self.release_plan = release_plan(record)
        self.inputs: dict[str, int] = {}

    @property
    def address_number(self) -> int:
        """The address as the value of a plan's slot: four bytes in network byte order."""
        return int.from_bytes(self.record.address.packed, sys.byteorder, signed=True)

    def open(self) -> None:
        """Opens the inputs of the release plan."""
        for name in ("leases", "hosts"):
            directory = store.path(self.network.name, name)
            self.inputs[name] = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.fds.append(self.inputs[name])
        self.fds.append(hosts.open_shared(self.inputs["hosts"]))

    def open_hosts(self) -> int:
        """The hosts file, open for writing for the duration of the lease (hosts.py)."""
        if self.record.private:
            self.fds.append(hosts.open_to_write(self.inputs["hosts"], str(self.record.address)))
        return self.fds[-1]

    def monitor_inputs(self) -> dict[str, int]:
        """The inputs of the release plan for a monitor, with a netfilter socket for the monitor."""
        self.inputs["netfilter"] = open_netfilter()
        self.fds.append(self.inputs["netfilter"])
        return self.inputs

    def lock_fds(self) -> list[int]:
        """The locks and sockets that hold the lease; a process that inherits them holds it too."""
        return [fd for fd in self.fds if fd not in self.inputs.values()]

    def release(self) -> list[tuple[str, int, int, int]]:
        """Releases the lease; returns (call, start, end, result) of each call."""
        try:
            return walk_here(self.release_plan, self.inputs)
        finally:
            self.close()

    def close(self) -> None:
        """Closes the descriptors; another process that has inherited them still holds the lease."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)


# ---- taking a lease


class LeaseRequest(NamedTuple):
    """A request for a lease: the owner's id, the names (separated by blanks), and options; ``cgroup``: the path of the
    owner's cgroup."""

    owner: str
    names: str
    address: str | None = None
    ports: tuple[Port, ...] = ()
    add_hosts: Mapping[str, str] = {}
    cgroup: str = ""


def take(network: Network, request: LeaseRequest, observe: Observe) -> Lease:
    """Takes a lease for this process. UnsupportedError: no address is free; SpecError: the requested address or port is
    taken."""
    with ExitStack() as undo, store.locked(exclusive=False), store.lease_lock(network.name):
        fds: list[int] = []
        undo.callback(_close, fds)
        start = now()
        address = _take_address(network, request.address, fds)
        observe(f"lock {address}", start)
        undo.callback(_unlink, store.path(network.name, "leases", str(address)))
        if request.address is None:
            _write_last(network, address)
        failpoint("address taken")
        bound = ports.bind(request.ports, fds, ipv6=network.subnet6 is not None)
        record = Record(
            request.owner,
            address,
            request.names,
            bound,
            (),
            bool(request.add_hosts),
            network.address6(address),
            request.cgroup,
        )
        _write(network, fds[0], record)
        failpoint("ports held")
        lease = _complete(network, record, fds, request, observe)
        undo.pop_all()
        return lease


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # it was released


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _complete(network: Network, record: Record, fds: list[int], request: LeaseRequest, observe: Observe) -> Lease:
    lease = Lease(network, record, fds)
    lease.open()
    try:
        lines = _write_names(network, lease, request, observe)
        lease.record = record = record._replace(lines=lines)
        lease.release_plan = release_plan(record)
        _write(network, fds[0], record)
        failpoint("names entered")
        _publish(record, observe)
        failpoint("ports published")
    except BaseException:
        written = hosts.lines_of(lease.inputs["hosts"], str(record.address))
        if record.six is not None:
            written += hosts.lines_of(lease.inputs["hosts"], str(record.six))
        walk_here(release_plan(record._replace(lines=tuple(written))), lease.inputs)
        raise
    return lease


def _take_address(network: Network, request: str | None, fds: list[int]) -> IPv4Address:
    """Takes a free address; its locked file is appended to ``fds``."""
    if request is not None:
        address = IPv4Address(request)
        if address not in network.subnet or address in (network.subnet[0], network.subnet[-1]):
            raise SpecError("ip", request, f"is no host's address of {network.subnet} (network {network.name})")
        if address == network.gateway:
            raise SpecError("ip", request, "is the host's own")
        if not (_create(network, address, fds) or _reclaim(network, address, fds)):
            raise SpecError("ip", request, f"is taken by {members.owner(network.name, address)}")
        return address
    leased = set(members.addresses(network.name))
    for address in _candidates(network):
        if str(address) not in leased and _create(network, address, fds):
            return address
    for text in sorted(leased):
        if _reclaim(network, IPv4Address(text), fds):
            return IPv4Address(text)
    reason = f"all {network.subnet.num_addresses - 3} addresses of {network.subnet} are taken"
    raise UnsupportedError("network", network.name, reason, "another network, with a larger --subnet")


def _candidates(network: Network) -> Iterator[IPv4Address]:
    """The addresses after the last assigned one, so that a released address is not reused at once."""
    first, count = int(network.subnet[1]), network.subnet.num_addresses - 2
    try:
        last = int(IPv4Address(runtime.read(store.path(network.name, "last")).strip())) - first + 1
    except (OSError, ValueError):
        last = 0
    for i in range(count):
        address = IPv4Address(first + (last + i) % count)
        if address != network.gateway:
            yield address


def _write_last(network: Network, address: IPv4Address) -> None:
    path = store.path(network.name, "last")
    try:
        fd = runtime.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    except ValueError as e:
        raise UnsupportedError("network", network.name, f"{path} {e}", "remove it") from None
    try:
        _overwrite(fd, str(address).encode(), path)
    finally:
        os.close(fd)


def _create(network: Network, address: IPv4Address, fds: list[int]) -> bool:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(store.path(network.name, "leases", str(address)), flags, 0o600)
    except FileExistsError:
        return False
    fds.append(fd)
    fcntl.flock(fd, fcntl.LOCK_EX)  # waits at most for a process that tests whether the owner is dead
    return True


def _reclaim(network: Network, address: IPv4Address, fds: list[int]) -> bool:
    return release_if_dead(network.name, str(address)) and _create(network, address, fds)


def _write_names(network: Network, lease: Lease, request: LeaseRequest, observe: Observe) -> tuple[int, ...]:
    start, directory, address = now(), lease.inputs["hosts"], lease.record.address
    lines = [hosts.add(directory, str(one), request.names) for one in (address, lease.record.six) if one is not None]
    if request.add_hosts:
        hosts.make(directory, str(address))
        for name, where in request.add_hosts.items():
            target = str(network.gateway) if where == HOST_GATEWAY else where
            lines.append(hosts.add(directory, target, name, only=str(address)))
    observe(f"pwrite(hosts, {address} {request.names})", start)
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


def _publish(record: Record, observe: Observe) -> None:
    """Adds the ports to the table. If the table is missing, or has elements of a dead owner, it is loaded again."""
    for map_ in firewall.MAPS:
        elements = [element for element in record.elements if element.map == map_]
        if elements and not _add(map_, elements, observe):
            break  # the table was loaded with all elements
    release.forget_flows(record.elements, observe)


def _add(map_: str, elements: list[Element], observe: Observe) -> bool:
    """Adds elements to a map; False if the whole table was loaded instead."""
    text = f"NFT_MSG_NEWSETELEM {map_} {', '.join(map(str, elements))}"
    plan = Plan([netlink(Slot("netfilter"), firewall.added(map_, elements), text)], ["netfilter"])
    ((call, start, _, result),) = walk_here(plan, {})
    observe(call, start)
    if result in (-errno.ENOENT, -errno.EEXIST):
        start = now()
        ports = members.published()  # includes these elements: the lease file has them
        firewall.load(store.readable(), ports)
        observe("nftables: the table is made again", start)
        release.forget_flows(ports, observe)
        return False
    if result < 0:
        raise StepError(-result, f"netlink({{{text}}})")
    return True

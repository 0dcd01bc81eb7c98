"""Releases a lease by a plan. The owner walks it, or a container's monitor, or a process that finds the owner dead."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address

from minicontainer import plan as p
from minicontainer.errors import Error, StepError
from minicontainer.linux.cgroup import Cgroup
from minicontainer.native import lib
from minicontainer.network import firewall, flows, hosts, store
from minicontainer.network.bridge import is_own
from minicontainer.network.members import Record, addresses, at, is_dead
from minicontainer.network.record import CorruptNetworkError
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.plan.netlink import comment_out, netlink
from minicontainer.plan.spawn import walk

KILL_TIMEOUT = 2.0  # seconds that a killed process may take to end, while other processes wait for the network's lock
Observe = Callable[[str, int], None]  # called for each primitive: the call, its start (nanoseconds)


def release_plan(record: Record) -> Plan:
    """The plan that releases a lease. Inputs: the directories ``leases`` and ``hosts``, and a socket ``netfilter``."""
    b = Builder()
    leases, hosts_directory, sock = b.input("leases"), b.input("hosts"), b.input("netfilter")
    b.phase = "network"
    for element in record.elements:
        message = firewall.removed(element)
        b.add(netlink(sock, message, f"NFT_MSG_DELSETELEM {element.map} {element}")._replace(tolerate=firewall.MISSING))
    b.add(*flows.ended(sock, record.address, record.elements))
    b.add(*(comment_out(hosts_directory, line) for line in record.lines))
    if record.private:
        b.add(p.call("unlinkat", hosts_directory, str(record.address), 0, tolerate=(errno.ENOENT,)))
    b.add(p.call("unlinkat", leases, str(record.address), 0, tolerate=(errno.ENOENT,)))
    return b.plan()


# Cached netfilter sockets, each with the pid that opened it: close(2) takes 20 ms after a change.
_sockets: list[tuple[int, int]] = []


def walk_here(plan: Plan, inputs: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Walks a plan in this process, with a cached netfilter socket that no other thread uses meanwhile."""
    pid, fd = _sockets.pop() if _sockets else (os.getpid(), open_netfilter())
    if pid != os.getpid():  # inherited by fork(2)
        os.close(fd)
        pid, fd = os.getpid(), open_netfilter()
    try:
        return walk(plan, {**inputs, "netfilter": fd})
    finally:
        _sockets.append((pid, fd))


def forget_flows(elements: Iterable[firewall.Element], observe: Observe = lambda call, start_ns: None) -> None:
    """Deletes tracked connections to newly published ports (flows.py)."""
    plan = Plan(list(flows.published(Slot("netfilter"), elements)), ["netfilter"])
    for call, start, _, result in walk_here(plan, {}) if plan.steps else ():
        observe(call, start)
        if result < 0:
            raise StepError(-result, call)


def open_netfilter() -> int:
    """socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)."""
    import socket

    return socket.socket(lib.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, lib.NETLINK_NETFILTER).detach()


def reclaim(name: str) -> None:
    """Releases every lease of a network whose owner was killed."""
    if not os.path.isdir(store.path(name, "leases")):
        return
    with store.lease_lock(name):
        for address in addresses(name):
            release_if_dead(name, address)


def release_dead(path: str) -> bool:
    """Releases the lease of a lease file, if its owner was killed; returns whether it did."""
    name, _, address = path.removeprefix(f"{store.directory()}/").partition("/leases/")
    try:
        with store.lease_lock(name):
            return release_if_dead(name, address)
    except LookupError:
        return False


def release_if_dead(name: str, address: str) -> bool:
    """As ``release_dead``; the caller holds the network's lock. False also if a process of the container survives:
    it still has the address."""
    path = store.path(name, "leases", address)
    if not is_dead(path):
        return False
    if _is_copied(name):
        os.unlink(path)
        return True
    record = at(path) or Record("", IPv4Address(address), "", private=True)  # its owner died before it wrote the file
    if not _kill_remaining(record):
        return False
    with ExitStack() as stack:
        inputs = {}
        for part in ("leases", "hosts"):
            inputs[part] = os.open(store.path(name, part), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, inputs[part])
        stack.callback(os.close, hosts.open_shared(inputs["hosts"]))
        walk_here(release_plan(_with_lines(name, inputs["hosts"], record)), inputs)
    return True


def _is_copied(name: str) -> bool:
    """Whether the network's files are a copy: its leases belong to another state directory, where they may be in
    use."""
    try:
        return not is_own(store.read(name))
    except (CorruptNetworkError, store.NoNetworkError):
        return False


def _kill_remaining(record: Record) -> bool:
    """Kills processes that outlived the owner, since they have changed their ids (prctl(2), PR_SET_PDEATHSIG); returns
    whether all have ended."""
    if not record.owner or not os.path.basename(record.cgroup).startswith(record.owner):
        return True
    try:
        Cgroup.open(record.cgroup).remove(kill=True, timeout=KILL_TIMEOUT)
    except StepError as error:
        return error.errno == errno.ENOENT
    return True


def _with_lines(name: str, directory: int, record: Record) -> Record:
    """The record with its IPv6 address and its lines in the hosts files, which a dead owner may not have recorded."""
    try:
        six = store.read(name).address6(record.address)
        lines = [at for one in (record.address, six) if one for at in hosts.lines_of(directory, str(one))]
        return record._replace(six=six, lines=tuple(lines))
    except (Error, OSError):
        return record._replace(lines=())  # the network, or its hosts file, is gone or invalid

"""The end of a lease: a plan, walked by its owner, by a container's monitor, or by who finds it without an owner."""

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
from minicontainer.network.members import Record, at, is_dead
from minicontainer.network.record import CorruptNetworkError
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.plan.netlink import comment_out, netlink
from minicontainer.plan.spawn import walk

SOON = 2.0  # seconds that what was killed may take to be gone, while others wait for the network's lock
Note = Callable[[str, int], None]  # told of each primitive: the call, when it began (nanoseconds)


def ending(record: Record) -> Plan:
    """The end of a lease. Inputs: the directories ``leases`` and ``hosts``, and a socket ``netfilter``."""
    b = Builder()
    leases, names, sock = b.input("leases"), b.input("hosts"), b.input("netfilter")
    b.phase = "network"
    for element in record.elements:
        told = firewall.removed(element)
        b.add(netlink(sock, told, f"NFT_MSG_DELSETELEM {element.map} {element}")._replace(tolerate=firewall.GONE))
    b.add(*flows.ended(sock, record.address, record.elements))
    b.add(*(comment_out(names, line) for line in record.lines))
    if record.private:
        b.add(p.call("unlinkat", names, str(record.address), 0, tolerate=(errno.ENOENT,)))
    b.add(p.call("unlinkat", leases, str(record.address), 0, tolerate=(errno.ENOENT,)))
    return b.plan()


_sockets: list[tuple[int, int]] = []  # of netfilter, with who opened it, kept: to close one takes 20 ms after a change


def walk_here(plan: Plan, inputs: Mapping[str, int]) -> list[tuple[str, int, int, int]]:
    """Walks a plan here, with a socket of netfilter that nobody else has meanwhile."""
    pid, fd = _sockets.pop() if _sockets else (os.getpid(), open_netfilter())
    if pid != os.getpid():  # that of the process which we were forked from
        os.close(fd)
        pid, fd = os.getpid(), open_netfilter()
    try:
        return walk(plan, {**inputs, "netfilter": fd})
    finally:
        _sockets.append((pid, fd))


def forget_flows(elements: Iterable[firewall.Element], note: Note = lambda call, begin: None) -> None:
    """Forgets what goes to ports that are published now, by their elements, as if they were not."""
    plan = Plan(list(flows.published(Slot("netfilter"), elements)), ["netfilter"])
    for call, start, _, result in walk_here(plan, {}) if plan.steps else ():
        note(call, start)
        if result < 0:
            raise StepError(-result, call)


def open_netfilter() -> int:
    """socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)."""
    import socket

    return socket.socket(lib.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, lib.NETLINK_NETFILTER).detach()


def reclaim(name: str) -> None:
    """Ends every lease of a network whose owner was killed."""
    if not os.path.isdir(store.path(name, "leases")):
        return
    with store.changing(name):
        for address in os.listdir(store.path(name, "leases")):
            end_if_dead(name, address)


def end_dead(path: str) -> bool:
    """Ends the lease of that file, where its owner was killed."""
    name, _, address = path.removeprefix(f"{store.directory()}/").partition("/leases/")
    try:
        with store.changing(name):
            return end_if_dead(name, address)
    except LookupError:
        return False


def end_if_dead(name: str, address: str) -> bool:
    """Under the network's lock. False too where something of its container still runs, which has the address."""
    path = store.path(name, "leases", address)
    if not is_dead(path):
        return False
    if _is_copied(name):
        os.unlink(path)
        return True
    record = at(path) or Record("", IPv4Address(address), "", private=True)  # it was being made
    if not _has_ended(record):
        return False
    with ExitStack() as stack:
        inputs = {}
        for part in ("leases", "hosts"):
            inputs[part] = os.open(store.path(name, part), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, inputs[part])
        stack.callback(os.close, hosts.hold(inputs["hosts"]))
        walk_here(ending(_whole(name, inputs["hosts"], record)), inputs)
    return True


def _is_copied(name: str) -> bool:
    """Whether what its files say is of another state directory, where it may live."""
    try:
        return not is_own(store.read(name))
    except (CorruptNetworkError, store.NoNetworkError):
        return False


def _has_ended(record: Record) -> bool:
    """Ends what outlived its owner, as a process does that has changed its ids (prctl(2), PR_SET_PDEATHSIG)."""
    if not record.owner or not os.path.basename(record.cgroup).startswith(record.owner):
        return True
    try:
        Cgroup.open(record.cgroup).remove(kill=True, timeout=SOON)
    except StepError as error:
        return error.errno == errno.ENOENT
    return True


def _whole(name: str, directory: int, record: Record) -> Record:
    """With its address of IPv6, and the lines of both, whatever it says itself."""
    try:
        six = store.read(name).address6(record.address)
        lines = [at for one in (record.address, six) if one for at in hosts.lines_of(directory, str(one))]
        return record._replace(six=six, lines=tuple(lines))
    except (Error, OSError):
        return record._replace(lines=())  # the network goes too, or its file of names

"""Where a container is reached: the ports that are published for it, and the sockets on which its processes wait for
others: of /proc/PID/net (proc(5)), those that are theirs."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from minicontainer.linux import namespaces

if TYPE_CHECKING:
    from minicontainer import spec as s
    from minicontainer.detached.records import Config, State
    from minicontainer.detached.store import Entry

TABLES = (("tcp", "tcp", socket.AF_INET), ("tcp6", "tcp", socket.AF_INET6), ("udp", "udp", socket.AF_INET),
          ("udp6", "udp", socket.AF_INET6))  # fmt: skip
WAITING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; an unconnected datagram socket is TCP_CLOSE (tcp_states.h)


class Port(NamedTuple):
    """One socket: ``number`` and ``protocol``, bound to ``address`` of the container's network namespace."""

    number: int
    protocol: str
    address: str


def published(entry: Entry, config: Config, state: State) -> tuple[s.Port, ...]:
    """The ports of the host that lead to it while it runs."""
    if not config.spec.ports or not state.is_running:
        return ()
    if not namespaces.is_root():
        return config.spec.ports  # by slirp4netns or pasta, as they were asked for
    from minicontainer.network import members

    record = members.at(entry.lease())
    return () if record is None else record.ports


def ports(pids: Iterable[int]) -> list[Port]:
    """Of these processes, which are in one network namespace, by number."""
    pids = list(pids)
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found = {port for inode, port in _waiting(pids[0]) if inode in inodes} if pids else set()
    return sorted(found)


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended, or closed one
    return found


def _waiting(pid: int) -> Iterable[tuple[str, Port]]:
    """(inode, port) of each socket of the namespace that waits."""
    for name, protocol, family in TABLES:
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as f:
                lines = f.readlines()[1:]
        except FileNotFoundError:
            continue  # no IPv6, or the process has ended
        for fields in map(str.split, lines):
            if fields[3] == WAITING[protocol]:
                yield fields[9], Port(int(fields[1].rpartition(":")[2], 16), protocol, _address(fields[1], family))


def _address(text: str, family: int) -> str:
    """The address of ``0100007F:1F90``: words of the host's byte order, in hexadecimal."""
    digits = text.partition(":")[0]
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))

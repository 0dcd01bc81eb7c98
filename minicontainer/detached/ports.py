"""The ports of a container: those that are published, and those on which its processes listen (/proc/PID/net,
proc(5))."""

from __future__ import annotations

import os
import socket
import struct

from minicontainer.linux.userns import is_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple

    from minicontainer import spec as s
    from minicontainer.detached.records import Config, State
    from minicontainer.detached.store import Entry
else:
    from minicontainer.records import NamedTuple

TABLES = (("tcp", "tcp", socket.AF_INET), ("tcp6", "tcp", socket.AF_INET6), ("udp", "udp", socket.AF_INET),
          ("udp6", "udp", socket.AF_INET6))  # fmt: skip
LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; an unconnected datagram socket is TCP_CLOSE (tcp_states.h)


class Port(NamedTuple):
    """One socket: ``number`` and ``protocol``, bound to ``address`` of the container's network namespace."""

    number: int
    protocol: str
    address: str


def published(entry: Entry, config: Config, state: State) -> tuple[s.Port, ...]:
    """The published ports of the host, while the container runs."""
    if not config.spec.ports or not state.is_running:
        return ()
    if not is_root():
        return config.spec.ports  # slirp4netns or pasta publishes the ports of the spec
    from minicontainer.network import members

    record = members.at(entry.lease())
    return () if record is None else record.ports


def ports(pids: Iterable[int]) -> list[Port]:
    """The listening sockets of these processes, which share a network namespace, by number."""
    pids = list(pids)
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    bound = {port for inode, port in _listening(pids[0]) if inode in inodes} if pids else set()
    return sorted(bound)


def _sockets(pid: int) -> set[str]:
    inodes = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process has ended, or closed a descriptor
    return inodes


def _listening(pid: int) -> Iterable[tuple[str, Port]]:
    """(inode, port) of each listening socket of the network namespace."""
    for name, protocol, family in TABLES:
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as f:
                lines = f.readlines()[1:]
        except FileNotFoundError:
            continue  # no IPv6, or the process has ended
        for fields in map(str.split, lines):
            if fields[3] == LISTENING[protocol]:
                yield fields[9], Port(int(fields[1].rpartition(":")[2], 16), protocol, _address(fields[1], family))


def _address(text: str, family: int) -> str:
    """The address of ``0100007F:1F90``: words of the host's byte order, in hexadecimal."""
    digits = text.partition(":")[0]
    integers = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(integers)}I", *integers))

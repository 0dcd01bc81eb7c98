"""Sockets and echo servers in the network namespaces of containers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from minicontainer.linux.namespaces import setns

T = TypeVar("T")
PATIENCE = 3.0


def inside(pid: int, do: Callable[[], T]) -> T:
    """Call ``do`` in the network namespace of a process, by a thread of its own; its result."""

    def call() -> T:
        setns(f"/proc/{pid}/ns/net", "CLONE_NEWNET")
        return do()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def bound(kind: int, address: str, port: int, family: int = socket.AF_INET) -> socket.socket:
    """A bound socket; a TCP socket also listens."""
    s = socket.socket(family, kind)
    s.settimeout(PATIENCE)
    s.bind((address, port))
    if kind == socket.SOCK_STREAM:
        s.listen(4096)
    return s


@contextlib.contextmanager
def server(pid: int, port: int, *, udp: bool = False, ipv6: bool = False) -> Iterator[list[str]]:
    """An echo server in the network namespace of a process; yields the list of its clients' addresses."""
    seen: list[str] = []
    family, kind = socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    s = inside(pid, lambda: bound(kind, "::" if ipv6 else "0.0.0.0", port, family))
    thread = threading.Thread(target=_echo_udp if udp else _echo_tcp, args=(s, seen))
    s.settimeout(0.1)
    ends.discard(s.fileno())
    thread.start()
    try:
        yield seen
    finally:
        ends.add(s.fileno())
        thread.join()
        ends.discard(s.fileno())
        s.close()


ends: set[int] = set()  # sockets whose servers must end


def _echo_udp(s: socket.socket, seen: list[str]) -> None:
    while s.fileno() not in ends:
        with contextlib.suppress(TimeoutError):
            data, where = s.recvfrom(2048)
            seen.append(where[0])
            s.sendto(data, where)


def _echo_tcp(s: socket.socket, seen: list[str]) -> None:
    while s.fileno() not in ends:
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection, where = s.accept()
            with connection:
                connection.settimeout(PATIENCE)
                seen.append(where[0])
                connection.sendall(connection.recv(2048))


def ask(address: str, port: int, *, udp: bool = False, data: bytes = b"word") -> bytes:
    """The answer of a server; OSError if there is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as s:
        s.settimeout(PATIENCE)
        s.connect((address, port))
        s.send(data)
        return s.recv(2048)


def is_reached(address: str, port: int, *, udp: bool = False, patience: float = 0.5) -> bool:
    """Whether a server answers there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as s:
        s.settimeout(patience)
        try:
            s.connect((address, port))
            s.send(b"word")
            return s.recv(2048) == b"word"
        except OSError:
            return False

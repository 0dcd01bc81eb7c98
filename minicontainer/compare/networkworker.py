"""Packets and starts on request, for ``compare network``: ``python -m minicontainer.compare.networkworker WHAT ...``.

server PID [PORT]           answers in the network namespace of a process; says its port first
client PID ADDRESS PORT     each line: BURST round trips of a byte, and BULK bytes; nanoseconds of one, and of these
start ROOTFS PROGRAM NETWORK [PORT]   each line: one container; nanoseconds of its start, its end, and of the start
                            what was rtnetlink's, and nftables'
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from time import perf_counter_ns

BURST, BULK = 50, 16 << 20
CHUNK = bytes(1 << 16)


def enter(pid: int) -> None:
    """setns(2) to the network namespace of a process; 0 is our own."""
    if pid:
        from minicontainer.linux.namespaces import setns

        setns(f"/proc/{pid}/ns/net", "CLONE_NEWNET")


def settle(choose: Callable[[Iterable[int]], int]) -> None:
    """On one processor: client and server on two, where there are two, else it depends on whether they come to share
    one."""
    os.sched_setaffinity(0, {choose(os.sched_getaffinity(0))})


def serve(pid: int, port: int) -> None:
    """Answers each byte with itself, and BULK bytes after a ``b`` with one."""
    settle(max)
    enter(pid)
    with socket.create_server(("0.0.0.0", port)) as s:
        print(s.getsockname()[1], flush=True)
        threading.Thread(target=_accept, args=(s,), daemon=True).start()
        sys.stdin.read()


def _accept(s: socket.socket) -> None:
    while True:
        connection, _ = s.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    with connection:
        while word := connection.recv(1):
            left = BULK if word == b"b" else 0
            while left:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
            connection.sendall(word)


def ask(pid: int, address: str, port: int) -> None:
    """One connection for all requests."""
    settle(min)
    enter(pid)
    with socket.create_connection((address, port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in sys.stdin:
            start = perf_counter_ns()
            for _ in range(BURST):
                s.send(b"r")
                s.recv(1)
            middle = perf_counter_ns()
            s.sendall(b"b")
            for _ in range(BULK // len(CHUNK)):
                s.sendall(CHUNK)
            s.recv(1)
            print((middle - start) // BURST, perf_counter_ns() - middle, flush=True)


def start(rootfs: str, program: str, network: str, *ports: str) -> None:
    """One spec, started again and again."""
    from minicontainer.container.process import DEVNULL, Popen
    from minicontainer.spec import Port, Spec

    given = Port.option(ports[0]) if ports else ()
    spec = Spec([program], rootfs=rootfs, network=network, ports=given)
    for _ in sys.stdin:
        begin = perf_counter_ns()
        with Popen(spec, stdin=DEVNULL) as process:
            started = perf_counter_ns()
            process.wait()
        ended = perf_counter_ns()
        shares = [
            sum(e.end - e.start for e in process.timeline if word in e.call) for word in ("{RTM_NEW", "{NFT_MSG_NEW")
        ]
        print(started - begin, ended - started, *shares, flush=True)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "server":
        serve(int(words[0]), int(words[1]))
    elif what == "client":
        ask(int(words[0]), words[1], int(words[2]))
    else:
        start(*words)

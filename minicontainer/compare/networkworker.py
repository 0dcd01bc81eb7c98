"""Workers of ``compare network``: ``python -m minicontainer.compare.networkworker WHAT ...``.

server PID [PORT]           answers in the network namespace of a process; prints its port first
client PID ADDRESS PORT     for each line on stdin: nanoseconds of a round trip (mean of BURST), and of BULK bytes
start ROOTFS PROGRAM NETWORK [PORT]   for each line on stdin: nanoseconds of a container's start and end, and of the
                            rtnetlink and nftables steps of the start
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
    """setns(2) to the network namespace of a process; 0: stay in the current one."""
    if pid:
        from minicontainer.linux.namespaces import setns

        setns(f"/proc/{pid}/ns/net", "CLONE_NEWNET")


def pin(choose: Callable[[Iterable[int]], int]) -> None:
    """Pin this process to one processor. Client and server choose different ones if there are two; otherwise the result
    would depend on whether they happen to share one."""
    os.sched_setaffinity(0, {choose(os.sched_getaffinity(0))})


def serve(pid: int, port: int) -> None:
    """Echo each byte; after a ``b``, receive BULK bytes before the answer; after a ``d``, send BULK bytes before it."""
    pin(max)
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
            for _ in range(BULK // len(CHUNK) if word == b"d" else 0):
                connection.sendall(CHUNK)
            connection.sendall(word)


def ask(pid: int, address: str, port: int) -> None:
    """The client; one connection for all requests."""
    pin(min)
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
    """Start one spec repeatedly."""
    from minicontainer.container.process import DEVNULL, Popen
    from minicontainer.spec import Port, Spec

    published = Port.option(ports[0]) if ports else ()
    spec = Spec([program], rootfs=rootfs, network=network, ports=published)
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

"""``compare network``: joining and leaving a network, many containers on one bridge, latency and rate of packets.

Two programs exchange packets by TCP: round trips of one byte, and many bytes one way. The floor is a veth pair between
two network namespaces, without a bridge. The network of the measurement is removed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from time import perf_counter, perf_counter_ns
from typing import Any

from minicontainer.compare import machine
from minicontainer.compare.contenders import Contender, Server, last_line
from minicontainer.compare.networkworker import BULK
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import compared, differences, percentile
from minicontainer.container.process import DEVNULL, Popen
from minicontainer.detached.container import Container
from minicontainer.errors import Error
from minicontainer.native import LIBEXEC
from minicontainer.network import members, networks
from minicontainer.network.bridge import read_sysctl
from minicontainer.spec import Port, Spec

FLOOR, INSIDE, PUBLISHED = "bare veth", "container to container", "host to published port"
PACKETS, BYTES = "round trip", "bytes"
START, END, RTNETLINK, NFTABLES = "start", "end", "rtnetlink", "nftables"
NONE, JOINED, WITH_PORT = "no network", "on a network", "with a published port"
PEERS = ("podman", "docker")
NAMES = (INSIDE, PUBLISHED, *PEERS)
NETWORK = f"minicontainer-compare-{os.getpid()}"
SERVED = 80  # the port of each server, in its own network namespace
EDGE = 50  # how many of the first, and of the last containers


def measure(
    only: Collection[str], rounds: int, progress: Callable[[int], None], containers: int = 500
) -> dict[str, Any]:
    """The figures as data: ``joining``, ``packets``, ``bytes``, ``many``."""
    unable: dict[str, str] = {}
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        rootfs = _rootfs(scratch)
        begin = perf_counter()
        networks.create(NETWORK)
        made = perf_counter() - begin
        stack.callback(networks.remove, NETWORK)
        joining = _joining(rootfs, rounds, progress)
        packets = _packets(rootfs, only, rounds, progress, unable)
        many = _many(rootfs, containers) if containers else {}
    return {
        "machine": machine.describe() | {"bridging": _bridged()},
        "create_seconds": made,
        "joining": joining,
        "packets": compared(packets[PACKETS], FLOOR, [(INSIDE, FLOOR), (PUBLISHED, FLOOR)]),
        "bytes": compared(packets[BYTES], FLOOR, [(INSIDE, FLOOR), (PUBLISHED, FLOOR)]) | {"bulk": BULK},
        "many": many,
        "unable": unable,
        "samples_ns": {part: {s.name: s.nanoseconds for s in each} for part, each in packets.items()},
    }


def _bridged() -> str:
    value = read_sysctl("bridge/bridge-nf-call-iptables")
    go = "go" if value == "1" else "do not go"
    return f"packets {go} through the firewall (bridge-nf-call-iptables={value or 'none'})"


def _rootfs(scratch: str) -> str:
    os.makedirs(f"{scratch}/rootfs/bin")
    os.makedirs(f"{scratch}/rootfs/etc")
    shutil.copy(f"{LIBEXEC}/pause", f"{scratch}/rootfs/bin/pause")
    return f"{scratch}/rootfs"


def _worker(name: str, *words: str, parts: tuple[str, ...]) -> Server:
    return Server(name, [sys.executable, "-m", "minicontainer.compare.networkworker", *words], parts)


# ---- joining and leaving


def _joining(rootfs: str, rounds: int, progress: Callable[[int], None]) -> dict[str, Any]:
    parts = (START, END, RTNETLINK, NFTABLES)
    program = "/bin/pause"
    entrants: list[Contender] = [
        _worker(NONE, "start", rootfs, program, "none", parts=parts),
        _worker(JOINED, "start", rootfs, program, NETWORK, parts=parts),
        _worker(WITH_PORT, "start", rootfs, program, NETWORK, "80", parts=parts),
    ]
    try:
        samples = interleave("compare network", entrants, rounds, progress)
    finally:
        for entrant in entrants:
            entrant.close()
    pairs = [(JOINED, NONE), (WITH_PORT, NONE)]
    return {
        START: compared(samples[START], NONE, []) | {"differences_us": differences(samples[START], pairs)},
        END: compared(samples[END], NONE, []) | {"differences_us": differences(samples[END], pairs)},
        "shares_us": {
            part: {s.name: percentile(s.nanoseconds, 50) / 1000 for s in samples[part] if s.name != NONE}
            for part in (RTNETLINK, NFTABLES)
        },
    }


# ---- packets


def _packets(
    rootfs: str, only: Collection[str], rounds: int, progress: Callable[[int], None], unable: dict[str, str]
) -> dict[str, Any]:
    with ExitStack() as stack:
        entrants: list[Contender] = []

        def add(name: str, server: int, client: int, address: str, published: int = 0) -> None:
            port = stack.enter_context(serving(server))
            words = ("client", str(client), address, str(published or port))
            entrants.append(_worker(name, *words, parts=(PACKETS, BYTES)))
            stack.callback(entrants[-1].close)

        add(FLOOR, *_bare_veth(rootfs, stack), "10.255.254.1")
        if INSIDE in only:
            first, second = (stack.enter_context(_sleeping(rootfs, NETWORK)) for _ in range(2))
            add(INSIDE, first.pid, second.pid, str(_lease(first).address))
        if PUBLISHED in only:
            holder = stack.enter_context(_sleeping(rootfs, NETWORK, ports=Port.option(str(SERVED))))
            add(PUBLISHED, holder.pid, 0, "127.0.0.1", _lease(holder).ports[0].host)
        for name in PEERS:
            if name in only:
                found = _peer(name, rootfs, stack)
                if isinstance(found, str):
                    unable[name] = found
                else:
                    add(f"{name}, container to container", *found)
        return interleave("compare network", entrants, rounds, progress)


@contextmanager
def serving(pid: int, port: int = SERVED) -> Iterator[int]:
    """A server in the network namespace of a process (0: of this one); yields its port. ``port`` 0: a free one."""
    command = [sys.executable, "-m", "minicontainer.compare.networkworker", "server", str(pid), str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


@contextmanager
def _sleeping(rootfs: str, network: str, **fields: Any) -> Iterator[Popen[Any]]:
    """A container that sleeps."""
    with Popen(["/bin/pause", "for-ever"], rootfs=rootfs, network=network, stdin=DEVNULL, **fields) as process:
        yield process
        process.kill()


def _lease(process: Popen[Any]) -> members.Record:
    return next(record for record in members.of(NETWORK) if record.owner == process.id)


def _bare_veth(rootfs: str, stack: ExitStack) -> tuple[int, int]:
    """Two network namespaces, of containers without a network, connected by a veth pair: their pids."""
    pids = [stack.enter_context(_sleeping(rootfs, "none", userns="host")).pid for _ in range(2)]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_connect, *pids).result()
    return pids[0], pids[1]


def _connect(left: int, right: int) -> None:
    from pyroute2 import IPRoute

    from minicontainer.linux.namespaces import setns

    for pid, other, last in ((left, right, 1), (right, 0, 2)):
        setns(f"/proc/{pid}/ns/net", "CLONE_NEWNET")
        with IPRoute() as ip:
            if other:
                ip.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_pid": other})
            (index,) = ip.link_lookup(ifname="eth0")
            ip.addr("add", index=index, address=f"10.255.254.{last}", prefixlen=24)
            ip.link("set", index=index, state="up")


def _peer(name: str, rootfs: str, stack: ExitStack) -> tuple[int, int, str] | str:
    """Two containers of another runtime on its default network: their pids, and the address of the first."""
    if shutil.which(name) is None:
        return "not installed"
    found = []
    for _ in range(2):
        try:
            image = ["--rootfs", rootfs] if name == "podman" else [_image(rootfs, stack)]
            command = [name, "run", "-d", "--network", "bridge", *image, "/bin/pause", "for-ever"]
            made = subprocess.run(command, capture_output=True, check=True).stdout.decode().strip()
            stack.callback(subprocess.run, [name, "rm", "-f", made], capture_output=True, check=False)
            output = subprocess.run([name, "inspect", made], capture_output=True, check=True).stdout
        except subprocess.CalledProcessError as e:
            return f"cannot run here: {last_line(e.stderr)}"
        (data,) = json.loads(output)
        found.append((int(data["State"]["Pid"]), str(data["NetworkSettings"]["IPAddress"])))
    return found[0][0], found[1][0], found[0][1]


def _image(rootfs: str, stack: ExitStack) -> str:
    """Import the directory as a docker image."""
    with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", NETWORK], stdin=tar.stdout, check=True, capture_output=True)
    stack.callback(subprocess.run, ["docker", "rmi", "--force", NETWORK], capture_output=True, check=False)
    return NETWORK


# ---- many containers


def _many(rootfs: str, count: int) -> dict[str, Any]:
    """Start detached containers on one bridge, one after the other."""
    spec = Spec(["/bin/pause", "for-ever"], rootfs=rootfs, network=NETWORK, stop_signal="KILL")
    made: list[Container] = []
    took: list[int] = []
    why = ""
    try:
        for _ in range(count):
            begin = perf_counter_ns()
            made.append(Container.start(spec))
            took.append(perf_counter_ns() - begin)
    except Error as e:
        why = str(e)
    begin = perf_counter_ns()
    for container in made:
        container.remove(force=True)
    removed = perf_counter_ns() - begin
    edges = {"first": took[:EDGE], "last": took[-EDGE:]}
    return {
        "containers": len(made),
        "stopped": why,
        "rate": len(made) / (sum(took) / 1e9),
        "start_us": {name: percentile(each, 50) / 1000 for name, each in edges.items()},
        "remove_us": removed / len(made) / 1000,
    }

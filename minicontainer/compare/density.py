"""``compare density``: many detached containers at a time: the rate of starts, memory per container, and latencies.

Memory is the decrease of MemAvailable per container, and the monitor's PSS (proc(5), smaps_rollup). Latencies: a
listing of all containers, as ``ps`` reads it; an exec of the smallest program in a random container until it is reaped;
a start; a stop of a container that ends at its first signal.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from minicontainer import runtime
from minicontainer.compare import machine
from minicontainer.compare.statistics import percentile
from minicontainer.container.process import DEVNULL
from minicontainer.detached.container import Container, containers
from minicontainer.detached.records import CorruptError
from minicontainer.detached.store import NotFoundError
from minicontainer.linux.mounts import mountinfo
from minicontainer.native import LIBEXEC
from minicontainer.spec import Spec

PROGRAM = "/bin/pause"
LABEL = "minicontainer.compare"
LEVELS = (0.0, 0.25, 0.5, 1.0)  # latencies are measured at these shares of all containers
SAMPLES = 30
BATCH = 50  # containers started between two checks of memory


def measure(number: int, least_available: int, progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """The figures as data. Stops before ``number`` if less than ``least_available`` bytes are available."""
    threads = 2 * (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="minicontainer-compare-") as scratch, ThreadPoolExecutor(threads) as pool:
        bench = Bench(_rootfs(scratch), pool)
        try:
            return bench.measure(number, least_available, progress) | {"threads": threads}
        finally:
            bench.remove_all()


def _rootfs(scratch: str) -> str:
    os.makedirs(f"{scratch}/rootfs/bin")
    shutil.copy(f"{LIBEXEC}/pause", f"{scratch}/rootfs{PROGRAM}")
    return f"{scratch}/rootfs"


class Bench:
    """Starts the containers and measures."""

    def __init__(self, rootfs: str, pool: ThreadPoolExecutor) -> None:
        self._spec, self._pool = Spec([PROGRAM, "for-ever"], rootfs=rootfs, stop_signal="KILL"), pool
        self._made: list[Container] = []
        self._seconds = 0.0

    def measure(self, number: int, least_available: int, progress: Callable[[int], None]) -> dict[str, Any]:
        described, latencies, why = machine.describe() | {"state": _state()}, [], ""
        self._start(1)  # creates what all containers share
        before, slab = machine.available_bytes(), _slab()
        self._seconds = 0.0
        for level in LEVELS:
            while len(self._made) < int(number * level) and not why:
                count = min(BATCH, int(number * level) - len(self._made))
                self._start(count)
                progress(count)
                if machine.available_bytes() < least_available:
                    why = f" (of {number}: stopped for lack of memory)"
            latencies.append(self._latencies())
        each = max(1, len(self._made) - 1)
        return {
            "machine": described,
            "containers": len(self._made),
            "stopped": why,
            "rate": each / self._seconds,
            "bytes": {
                "system": (before - machine.available_bytes()) / each,
                "slab": (_slab() - slab) / each,
                "monitor": self._pss(),
            },
            "latencies": latencies,
        }

    def _start(self, count: int) -> None:
        begin = perf_counter()
        self._made += self._pool.map(self._one, range(count))
        self._seconds += perf_counter() - begin

    def _one(self, _: int) -> Container:
        return Container.start(self._spec, labels={LABEL: "density"})

    def _latencies(self) -> dict[str, float]:
        listed = [_timed(_list) for _ in range(3)]
        one = random.choice(self._made)
        execs = [_timed(lambda: one.run([PROGRAM], stdin=DEVNULL)) for _ in range(SAMPLES)]
        stops, starts = [], []
        for _ in range(SAMPLES):
            starts.append(_timed(lambda: self._made.append(self._one(0))))
            last = self._made.pop()
            stops.append(_timed(last.stop))
            last.remove()
        return {
            "containers": len(self._made),
            "ps ms": min(listed) * 1e3,
            "ps us each": min(listed) / len(containers()) * 1e6,
            "exec p50 us": percentile(execs, 50) * 1e6,
            "stop p50 us": percentile(stops, 50) * 1e6,
            "start p50 us": percentile(starts, 50) * 1e6,
        }

    def _pss(self) -> float:
        sizes = []
        for container in self._made[:SAMPLES]:
            monitor = container.state.monitor
            if monitor is not None:
                sizes.append(_pss(monitor.pid))
        return sum(sizes) / max(1, len(sizes))

    def remove_all(self) -> None:
        """Remove the started containers."""
        list(self._pool.map(lambda container: container.remove(force=True), self._made))


def _state() -> str:
    """The state directory and its file system: each start syncs two files there."""
    path = runtime.directory()
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [found.fstype for found in mountinfo() if found.device == number]
    return f"{path} on {kinds[0] if kinds else 'an unknown file system'}"


def _timed(do: Callable[[], object]) -> float:
    begin = perf_counter()
    do()
    return perf_counter() - begin


def _list() -> Sequence[tuple[str, str]]:
    found = []
    for container in containers():
        try:
            found.append((container.name, container.status))
        except (CorruptError, NotFoundError):
            pass  # another's container, removed meanwhile
    return found


def _slab() -> int:
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Slab:"))


def _pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))

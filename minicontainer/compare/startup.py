"""``compare startup``: the time to start a container, run a program to its end and clean up. All contenders take turns.

By default the program is csrc/floors/pause.c with an empty stdin, whose only cost is its exec; with a root file system
of the user, it is /bin/true of that. The floor does the same as ``library-bare``, the library without user and time
namespaces and without a seccomp filter; the cost of these defaults is reported separately. Beside every way into the
library and the command line stand ``python -c pass``, and what ``exec`` and ``kvm-boot`` take in the library.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from typing import Any

from minicontainer.compare import contenders, machine
from minicontainer.compare.boot import worker_command
from minicontainer.compare.contenders import TOTAL, Command, Contender, Server, command_line
from minicontainer.compare.peers import PEERS, peer
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import Samples, compared, differences
from minicontainer.compare.targets import Target, judged
from minicontainer.compare.worker import EACH, THREADS
from minicontainer.container import host
from minicontainer.container.cgroup import placement
from minicontainer.errors import UnsupportedError
from minicontainer.native import LIBEXEC

GIB = 4
LARGE, BARE, PYTHON = f"library-{GIB}GiB", "library-bare", "python -c pass"
POOL, TO_EXEC, IN_PYTHON = "pool", "to the exec", "in Python"
WAYS = {BARE: "bare", "library": "reused", "keywords": "keywords", "captured": "captured", "replaced": "replaced"}
IN_LIBRARY = {"exec": "library-exec", "kvm-boot": "library-boot"}
OURS = (*WAYS, POOL, LARGE, "compiled", PYTHON, "command-line", "exec", "library-exec", "kvm-boot", "library-boot")
NAMES = ("floor", *OURS, *PEERS, "threads")
ONE, MANY = "1 thread", f"{THREADS} threads"
FLOOR, FLOORS = "1 floor", f"{THREADS} floors"
PAIRS = ((BARE, "floor"), ("library", BARE), (LARGE, "library"))
TARGETS = (
    Target("library", "floor", 1.2),
    Target("keywords", "library", 1.15),
    Target("captured", "library", 1.15),
    Target("replaced", "library", 1.15),
    Target("compiled", "bwrap", 0.8),
    Target("compiled", "crun", 0.25),
    Target(POOL, "library", 0.6),
    Target("command-line", PYTHON, 2.2),
    Target("command-line", "runc", 1.5),
    *(Target(name, PYTHON, 2.2, own) for name, own in IN_LIBRARY.items()),
    Target(MANY, ONE, 1 / 1.7),  # 1.7 times the rate
)


def measure(
    *,
    rounds: int = 200,
    rootfs: str | None = None,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``rows`` (floor first), ``paired``, ``targets``, ``unable``, ``samples_ns``.

    ``only`` names the contenders; the floor is always measured. ``progress`` is called after each round, including the
    warm-up."""
    if os.geteuid() != 0:
        raise UnsupportedError("compare startup", None, "the floor needs root", "sudo")
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        program = "/bin/true" if rootfs else "/bin/pause"
        directory = os.path.abspath(rootfs) if rootfs else _smallest(scratch, program)
        host.check_rootfs(directory)
        entrants, unable = [], {}
        for name in (name for name in NAMES if name in only or name == "floor"):
            if name != "threads":
                found = _entrant(name, directory, program, scratch, stack)
                if isinstance(found, str):
                    unable[name] = found
                else:
                    stack.callback(found.close)
                    entrants.append(found)
        parts = interleave("compare startup", entrants, rounds, progress)
        samples = parts[TOTAL]
        for part in (IN_PYTHON, TO_EXEC):
            samples += [Samples(f"{s.name} {part}", s.nanoseconds) for s in parts.get(part, ())]
        threads = _threads(directory, program, rounds) if "threads" in only else []
    report = compared(samples, "floor", PAIRS)
    report["paired"] |= compared(threads, "", ((MANY, ONE), (FLOORS, FLOOR)))["paired"]
    return {
        "program": program,
        "machine": machine.describe(),
        **report,
        "differences_us": differences(samples, PAIRS[1:2]),
        "targets": judged(TARGETS, [*samples, *threads]),
        "unable": unable,
        "samples_ns": {s.name: s.nanoseconds for s in (*samples, *threads)},
    }


def _smallest(scratch: str, program: str) -> str:
    """A root file system with one static program."""
    directory = os.path.join(scratch, "rootfs")
    os.makedirs(directory + os.path.dirname(program))
    shutil.copy(os.path.join(LIBEXEC, "pause"), directory + program)
    return directory


def _entrant(name: str, rootfs: str, program: str, scratch: str, stack: ExitStack) -> Contender | str:
    """A contender, or why it cannot be measured. ``stack`` ends what it needs."""
    if name == "floor":
        return contenders.floor(rootfs, program, home())
    if name == PYTHON:
        return Command(PYTHON, lambda _: [sys.executable, "-c", "pass"])
    if name == "compiled":
        return _compiled(rootfs, program, scratch)
    if name == "command-line":
        return command_line(name, "run", rootfs, program)
    if name in ("exec", "library-exec"):
        identifier = stack.enter_context(running(rootfs, program))
        if name == "exec":
            return command_line(name, "exec", identifier, program)
        return contenders.library(name, identifier, program, 0, "exec")
    if name in ("kvm-boot", "library-boot"):
        return _booting(name)
    if name == POOL:
        return contenders.library(name, rootfs, program, 0, name, parts=(TOTAL, TO_EXEC))
    if name in PEERS:
        return peer(name, rootfs, [program], scratch)
    if name == "library":
        return contenders.library(name, rootfs, program, 0, WAYS[name], parts=(TOTAL, IN_PYTHON))
    if name == LARGE:
        return machine.lack_of_memory(GIB) or contenders.library(name, rootfs, program, GIB, "large")
    return contenders.library(name, rootfs, program, 0, WAYS[name])


def _compiled(rootfs: str, program: str, scratch: str) -> Contender:
    from minicontainer.compiled.compilation import compile

    file = os.path.join(scratch, "compiled")
    compile([program], file, rootfs=rootfs, terminal=False)
    return Command("compiled", lambda _: [file])


def _booting(name: str) -> Contender | str:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is missing"
    if name == "kvm-boot":
        return command_line(name, "kvm-boot", "hello")
    return Server(name, worker_command("boot", "hello", 0), ("create", "first exit", TOTAL))


def _threads(rootfs: str, program: str, rounds: int) -> list[Samples]:
    """The time of THREADS times EACH containers, by one thread and by THREADS, and by floors: the kernel's share of the
    limit."""
    name = "threads"
    with ExitStack() as stack:
        worker = contenders.library(name, rootfs, program, 0, name, parts=(ONE, MANY))
        stack.callback(worker.close)
        floors = Floors(contenders.floor_command(rootfs, program, home()))
        stack.callback(floors.close)
        entrants: list[Contender] = [worker, floors]
        parts = interleave("compare startup", entrants, max(1, rounds // 10), lambda _: None, 1)
    return [Samples(part, samples[0].nanoseconds) for part, samples in parts.items()]


class Floors:
    """A contender: THREADS times EACH containers by one floor, then by THREADS floors at a time."""

    name, parts = "floors", (FLOOR, FLOORS)

    def __init__(self, command: list[str]) -> None:
        self._floors = [Server("floor", command) for _ in range(THREADS)]
        self._pool = ThreadPoolExecutor(THREADS)

    def once(self) -> tuple[int, ...]:
        """As Contender."""
        first, start = self._floors[0], perf_counter_ns()
        for _ in self._floors:
            self._several(first)
        between = perf_counter_ns()
        list(self._pool.map(self._several, self._floors))
        return between - start, perf_counter_ns() - between

    @staticmethod
    def _several(floor: Server) -> None:
        for _ in range(EACH):
            floor.once()

    def close(self) -> None:
        """As Contender."""
        self._pool.shutdown()
        for floor in self._floors:
            floor.close()


@contextmanager
def running(rootfs: str, program: str) -> Iterator[str]:
    """A container that sleeps until the end of the block; yields its id."""
    from minicontainer.detached.container import Container

    asleep = [program, "for-ever"] if program == "/bin/pause" else ["/bin/sh", "-c", "while sleep 1000; do :; done"]
    container = Container.start(asleep, rootfs=rootfs, stop_signal="KILL", remove=True)
    try:
        yield container.id
    finally:
        container.stop()


def home() -> str:
    """The parent cgroup of containers, prepared as by the library."""
    place = placement.place("c0de00000000", {})
    if place is None:
        raise UnsupportedError("compare startup", None, "this host gives no cgroup", "minicontainer doctor")
    with place.group as group:
        return os.path.dirname(group.path)

"""``compare startup``: from nothing to a program's end and back to nothing, by everybody, in one interleaved run.

Each round asks every contender once, in a new random order; so load, caches and the kernel's deferred work fall on all
alike, and ratios mean something on a noisy machine. Without a root file system of the user's, the program is
csrc/pause.c with nothing to read, whose own cost is that of an exec; with one it is its /bin/true.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any

from minicontainer.compare import contenders, machine
from minicontainer.compare.contenders import LIBEXEC, Contender
from minicontainer.compare.peers import PEERS, peer
from minicontainer.compare.statistics import Samples, paired_ratio, row
from minicontainer.container import host, placement
from minicontainer.errors import Error, UnsupportedError

WARM_UP = 10  # rounds
GIB = 4
LARGE = f"library-{GIB}GiB"
NAMES = ("floor", "library", LARGE, "command-line", *PEERS)


def measure(
    *,
    rounds: int = 200,
    rootfs: str | None = None,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``rows`` (floor first), ``paired``, ``unable``, ``samples_ns``.

    ``only`` names the contenders; the floor is always among them. ``progress`` is called after each round, WARM_UP of
    which come first and are not counted."""
    if os.geteuid() != 0:
        raise UnsupportedError("compare startup", None, "the floor needs root", "sudo")
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        program = "/bin/true" if rootfs else "/bin/pause"
        directory = os.path.abspath(rootfs) if rootfs else _smallest(scratch, program)
        host.check_rootfs(directory)
        entrants, unable = [], {}
        for name in NAMES:
            if name in only or name == "floor":
                found = _entrant(name, directory, program, scratch)
                if isinstance(found, str):
                    unable[name] = found
                else:
                    stack.callback(found.close)
                    entrants.append(found)
        samples = interleave(entrants, rounds, progress)
    return {"program": program, **_report(samples, unable)}


def _smallest(scratch: str, program: str) -> str:
    """A root file system of one static program."""
    directory = os.path.join(scratch, "rootfs")
    os.makedirs(directory + os.path.dirname(program))
    shutil.copy(os.path.join(LIBEXEC, "pause"), directory + program)
    return directory


def _entrant(name: str, rootfs: str, program: str, scratch: str) -> Contender | str:
    """A contender, ready; or why there is none."""
    if name == "floor":
        return contenders.floor(rootfs, program, home())
    if name == "command-line":
        return contenders.command_line(rootfs, program)
    if name in PEERS:
        return peer(name, rootfs, program, scratch)
    gib = GIB if name == LARGE else 0
    if gib and machine.available_bytes() < (gib + 2) << 30:
        return f"less than {gib + 2} GiB of memory are available"
    return contenders.library(rootfs, program, gib)


def home() -> str:
    """The cgroup in which the library makes containers' own, as it leaves it."""
    group = placement.place("c0de00000000", {})
    if group is None:
        raise UnsupportedError("compare startup", None, "this host gives no cgroup", "minicontainer doctor")
    with group:
        return os.path.dirname(group.path)


def interleave(entrants: Sequence[Contender], rounds: int, progress: Callable[[int], None]) -> list[Samples]:
    """``rounds`` rounds of all, after a warm-up that is not counted."""
    samples = [Samples(entrant.name, []) for entrant in entrants]
    for number in range(-WARM_UP, rounds):
        for i in random.sample(range(len(entrants)), len(entrants)):
            try:
                took = entrants[i].once()
            except Error as e:
                raise Error(f"compare startup: {entrants[i].name} failed: {e}") from None
            if number >= 0:
                samples[i].nanoseconds.append(took)
        progress(number)
    return samples


def _report(samples: list[Samples], unable: dict[str, str]) -> dict[str, Any]:
    by_name = {s.name: s for s in samples}
    pairs = [(a, b) for a, b in (("library", "floor"), (LARGE, "library")) if a in by_name and b in by_name]
    return {
        "machine": machine.describe(),
        "rows": [row(s, by_name["floor"]) for s in samples],
        "paired": {f"{a} / {b}": paired_ratio(by_name[a], by_name[b]) for a, b in pairs},
        "unable": unable,
        "samples_ns": {s.name: s.nanoseconds for s in samples},
    }

"""``compare startup``: from nothing to a program's end and back to nothing, by everybody, in one interleaved run.

Each round asks every contender once, in a new random order; so load, caches and the kernel's deferred work fall on all
alike, and ratios mean something on a noisy machine. The program is csrc/pause.c with nothing to read: its own cost is
that of an exec.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from minicontainer.compare import contenders, machine
from minicontainer.compare.contenders import LIBEXEC, Contender
from minicontainer.compare.peers import peers
from minicontainer.compare.statistics import Samples, paired_ratio, row
from minicontainer.container import placement
from minicontainer.errors import UnsupportedError

WARM_UP = 10
GIB = 4
PROGRAM = "/bin/pause"


def measure(
    *, rounds: int = 200, rootfs: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``rows`` (floor first), ``unable``, ``samples``, ``paired``."""
    if os.geteuid() != 0:
        raise UnsupportedError("compare startup", None, "the floor needs root", "sudo")
    with _rootfs(rootfs) as directory, ExitStack() as stack:
        entrants, unable = _entrants(directory)
        for entrant in entrants:
            stack.callback(entrant.close)
        samples = interleave(entrants, rounds, progress)
    return _report(samples, unable)


def interleave(entrants: Sequence[Contender], rounds: int, progress: Callable[[int], None]) -> list[Samples]:
    """``rounds`` rounds of all, after a warm-up that is not counted."""
    samples = [Samples(entrant.name, []) for entrant in entrants]
    for number in range(-WARM_UP, rounds):
        order = list(range(len(entrants)))
        random.shuffle(order)
        for i in order:
            took = entrants[i].once()
            if number >= 0:
                samples[i].nanoseconds.append(took)
        progress(number)
    return samples


def _entrants(rootfs: str) -> tuple[list[Contender], dict[str, str]]:
    home = placement.place("c0mpare00000", {})
    if home is None:
        raise UnsupportedError("compare startup", None, "this host gives no cgroup", "minicontainer doctor")
    home.remove()
    home.close()
    parent = os.path.dirname(home.path)
    found: list[Contender] = [contenders.floor(rootfs, PROGRAM, parent), contenders.library(rootfs, PROGRAM)]
    able, unable = peers(rootfs, PROGRAM)
    if machine.available_bytes() > (GIB + 2) << 30:
        found.append(contenders.library(rootfs, PROGRAM, GIB))
    else:
        unable[f"library, {GIB} GiB touched"] = f"less than {GIB + 2} GiB of memory are available"
    return [*found, contenders.command_line(rootfs, PROGRAM), *able], unable


@contextmanager
def _rootfs(given: str | None) -> Iterator[str]:
    """A root file system with the program in it: a copy's cost is nobody's, so it is made beside the given one."""
    directory = tempfile.mkdtemp(prefix="minicontainer-compare-")
    try:
        path = os.path.join(directory, "rootfs")
        if given is not None:
            shutil.copytree(given, path, symlinks=True)
        os.makedirs(os.path.join(path, "bin"), exist_ok=True)
        shutil.copy(os.path.join(LIBEXEC, "pause"), path + PROGRAM)
        os.chmod(directory, 0o755)
        yield path
    finally:
        shutil.rmtree(directory)


def _report(samples: list[Samples], unable: dict[str, str]) -> dict[str, Any]:
    by_name = {s.name: s for s in samples}
    large = by_name.get(f"library, {GIB} GiB touched")
    paired = {"library / floor": paired_ratio(by_name["library"], by_name["floor"])}
    if large is not None:
        paired[f"library with {GIB} GiB / library"] = paired_ratio(large, by_name["library"])
    return {
        "machine": machine.describe(),
        "rows": [row(s, by_name["floor"]) for s in samples],
        "paired": paired,
        "unable": unable,
        "samples_ns": {s.name: s.nanoseconds for s in samples},
    }

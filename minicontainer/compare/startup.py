"""``compare startup``: the time to start a container, run a program to its end and clean up. All contenders take turns.

By default the program is csrc/floors/pause.c with an empty stdin, whose only cost is its exec; with a root file system
of the user, it is /bin/true of that. The floor does the same as ``library-bare``, the library without user and time
namespaces and without a seccomp filter; the cost of these defaults is reported separately.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from minicontainer.compare import contenders, machine
from minicontainer.compare.contenders import TOTAL, Contender
from minicontainer.compare.peers import PEERS, peer
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import compared, differences
from minicontainer.container import host
from minicontainer.container.cgroup import placement
from minicontainer.errors import UnsupportedError
from minicontainer.native import LIBEXEC

GIB = 4
LARGE, BARE = f"library-{GIB}GiB", "library-bare"
NAMES = ("floor", BARE, "library", LARGE, "command-line", *PEERS)
PAIRS = ((BARE, "floor"), ("library", BARE), (LARGE, "library"))


def measure(
    *,
    rounds: int = 200,
    rootfs: str | None = None,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``rows`` (floor first), ``paired``, ``unable``, ``samples_ns``.

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
        for name in NAMES:
            if name in only or name == "floor":
                found = _entrant(name, directory, program, scratch)
                if isinstance(found, str):
                    unable[name] = found
                else:
                    stack.callback(found.close)
                    entrants.append(found)
        samples = interleave("compare startup", entrants, rounds, progress)[TOTAL]
    return {
        "program": program,
        "machine": machine.describe(),
        **compared(samples, "floor", PAIRS),
        "differences_us": differences(samples, PAIRS[1:2]),
        "unable": unable,
        "samples_ns": {s.name: s.nanoseconds for s in samples},
    }


def _smallest(scratch: str, program: str) -> str:
    """A root file system with one static program."""
    directory = os.path.join(scratch, "rootfs")
    os.makedirs(directory + os.path.dirname(program))
    shutil.copy(os.path.join(LIBEXEC, "pause"), directory + program)
    return directory


def _entrant(name: str, rootfs: str, program: str, scratch: str) -> Contender | str:
    """A contender, or why it cannot be measured."""
    if name == "floor":
        return contenders.floor(rootfs, program, home())
    if name == "command-line":
        return contenders.command_line("run", rootfs, program)
    if name in PEERS:
        return peer(name, rootfs, [program], scratch)
    gib, words = GIB if name == LARGE else 0, ["bare"] if name == BARE else []
    return machine.lack_of_memory(gib) or contenders.library(name, rootfs, program, gib, *words)


def home() -> str:
    """The parent cgroup of containers, prepared as by the library."""
    group = placement.place("c0de00000000", {})
    if group is None:
        raise UnsupportedError("compare startup", None, "this host gives no cgroup", "minicontainer doctor")
    with group:
        return os.path.dirname(group.path)

"""``compare boot``: the time to create a tiny machine, run its guest until it halts and close it; the time of one exit;
the memory of idle machines. All contenders take turns.

The guests are csrc/guests/hello.S and exits.S. Three times are measured for each boot, from before its first system
call: until the guest can be entered, until its first exit, until everything is closed. A command line is timed from
outside, until the last. All contenders run on the same processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from minicontainer.compare import contenders, machine
from minicontainer.compare.bootworker import PYTHON_PORT
from minicontainer.compare.contenders import TOTAL, Contender, Server
from minicontainer.compare.rounds import interleave, one_processor
from minicontainer.compare.statistics import Samples, compared, differences
from minicontainer.compare.targets import Target, judged
from minicontainer.errors import Error
from minicontainer.kvm import cpuid, guests
from minicontainer.kvm.system import Kvm
from minicontainer.native import LIBEXEC, ffi, lib

GIB = 4
LARGE = f"library-{GIB}GiB"
BARE, IN_C, IN_PYTHON = "exits-bare", "exits-in-c", "exits-in-python"
BOOTS = ("floor", "library", LARGE, "command-line")
EXITS = (BARE, IN_C, IN_PYTHON)
NAMES = (*BOOTS, *EXITS)
PARTS = ("create", "first exit", TOTAL)
EXIT = "exit"  # the part that the contenders of exits measure
SCRATCH_PORT = lib.MC_SERIAL_PORT + 7  # the scratch register of the serial port
TARGETS = (Target("library", "floor", 1.25),)  # of the time until everything is closed
PAIRS = (("library", "floor"), (LARGE, "library"), (IN_C, BARE), (IN_PYTHON, BARE))


def measure(
    *,
    rounds: int = 200,
    only: Collection[str] = NAMES,
    exits: int = 2000,
    machines: int = 1000,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``; ``boot``: by part, and ``exits``: ``rows`` and ``paired`` ratios;
    ``targets``; ``idle``; ``unable``; ``samples_ns`` by part.

    ``only`` names the contenders; the floors of boots and exits are always measured. One sample of exits is the mean of
    ``exits`` exits. ``machines``: the number of idle machines; 0: none. ``progress`` as of interleave."""
    entrants: list[Contender] = []
    unable = {}
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        number = stack.enter_context(one_processor())
        table = write_cpuid(scratch)
        for name in chosen(only):
            found = _entrant(name, table, exits)
            if isinstance(found, str):
                unable[name] = found
            else:
                stack.callback(found.close)
                entrants.append(found)
        samples = interleave("compare boot", entrants, rounds, progress)
    idle = _idle(machines) if machines else {}
    if "unable" in idle:
        unable["idle"] = idle.pop("unable")
    return {
        "machine": {**machine.describe(), "pinned": f"to CPU {number}"},
        "boot": {part: compared(samples[part], "floor", PAIRS) for part in PARTS if part in samples},
        "exits": _exits(samples.get(EXIT, [])),
        "targets": judged(TARGETS, samples.get(TOTAL, [])),
        "idle": idle,
        "unable": unable,
        "samples_ns": {part: {s.name: s.nanoseconds for s in each} for part, each in samples.items()},
    }


def chosen(only: Collection[str]) -> list[str]:
    """The requested contenders; each kind begins with its floor."""
    return [name for kind in (BOOTS, EXITS) for name in kind if name in only or (name == kind[0] and {*only} & {*kind})]


def write_cpuid(directory: str) -> str:
    """A file with the CPUID table that the library sets for a guest, so that the floor sets the same."""
    path = os.path.join(directory, "cpuid")
    with Kvm() as kvm, open(path, "wb") as file:
        table = cpuid.for_processor(kvm, 0, 1, irqchip=False)
        size = ffi.sizeof("struct kvm_cpuid2") + table.nent * ffi.sizeof("struct kvm_cpuid_entry2")
        file.write(ffi.buffer(table, size))
    return path


def floor_command(table: str, *words: str) -> list[str]:
    """The command of csrc/floors/kvmfloor.c: its boots, or with arguments its exits."""
    if words:
        return [f"{LIBEXEC}/kvmfloor", "exits", guests.path("exits"), table, *words]
    return [f"{LIBEXEC}/kvmfloor", "boot", guests.path("hello"), table]


def worker_command(what: str, guest: str, *numbers: int) -> list[str]:
    """The command of bootworker.py."""
    return [sys.executable, "-m", "minicontainer.compare.bootworker", what, guests.path(guest), *map(str, numbers)]


def _entrant(name: str, table: str, exits: int) -> Contender | str:
    """A contender, or why it cannot be measured."""
    if name == "floor":
        return Server(name, floor_command(table), PARTS)
    if name == "command-line":
        return contenders.command_line("command-line", "kvm-boot", "hello")
    if name == BARE:
        return Server(name, floor_command(table, str(exits), str(PYTHON_PORT)), (EXIT,))
    if name in EXITS:
        port = SCRATCH_PORT if name == IN_C else PYTHON_PORT
        return Server(name, worker_command("exits", "exits", exits, port), (EXIT,))
    gib = GIB if name == LARGE else 0
    return machine.lack_of_memory(gib) or Server(name, worker_command("boot", "hello", gib), PARTS)


def _exits(samples: list[Samples]) -> dict[str, Any]:
    """The comparison of exits, with the differences to the bare loop in microseconds."""
    if not samples:
        return {}
    bare, *others = samples
    pairs = [(other.name, bare.name) for other in others]
    return {**compared(samples, bare.name, PAIRS), "differences_us": differences(samples, pairs)}


def _idle(count: int) -> dict[str, Any]:
    """The cost of idle machines (bootworker.idle), measured in another process; or why they cannot be created."""
    command = worker_command("idle", "hello", count)
    done = subprocess.run(command, input="\n", text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Error(f"compare boot: {count} idle machines: ended with status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found

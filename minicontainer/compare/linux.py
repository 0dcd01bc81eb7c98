"""``compare linux``: the time from a command's start to the first process of a Linux kernel, for ``kvm-boot``, another
build's ``kvm-boot`` and QEMU's microvm, with the same initrd (csrc/floors/mark.c), kernel command line and memory. All
take turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from time import perf_counter_ns
from typing import Any

from minicontainer.compare import machine
from minicontainer.compare.contenders import TOTAL, Contender, own_command
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import compared
from minicontainer.compare.targets import Target, judged
from minicontainer.cpio import newc
from minicontainer.errors import Error
from minicontainer.native import LIBEXEC

MARK = b"minicontainer: init"  # printed by csrc/floors/mark.c
QEMU, OURS, OURS_64, AGAINST = "qemu-microvm", "kvm-boot", "kvm-boot-64bit", "against"
NAMES = (QEMU, OURS, OURS_64, AGAINST)
INIT = "init"  # the part until the mark
PARTS = (INIT, TOTAL)
PAIRS = ((OURS, QEMU), (OURS_64, QEMU), (OURS, AGAINST))
TARGETS = (Target(OURS, AGAINST, 0.4), Target(OURS, QEMU, 0.6))  # of the time until the mark
APPEND = (
    "console=ttyS0 quiet mitigations=off tsc=reliable no_timer_check 8250.nr_uarts=1 i8042.nokbd i8042.noaux"
    " cryptomgr.notests pci=off panic=-1"
)
UNABLE = {QEMU: "not installed", AGAINST: "no other build was named (--against)"}
WARM_UP = 1  # rounds: each takes seconds


class Marked:
    """A command that boots Linux with the console on stdout, timed until the mark, and until its end."""

    parts = PARTS

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name, self._argv = name, argv

    def once(self) -> tuple[int, ...]:
        """As Contender."""
        said, marked = b"", 0
        start = perf_counter_ns()
        with subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as running:
            assert running.stdout is not None
            while data := os.read(running.stdout.fileno(), 65536):
                said += data
                if not marked and MARK in said:
                    marked = perf_counter_ns() - start
        took = perf_counter_ns() - start
        if running.returncode or not marked:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise Error(f"{last[0]} (status {running.returncode})")
        return marked, took

    def close(self) -> None:
        """As Contender."""


def measure(
    kernel: str,
    *,
    memory: str = "256M",
    append: str = APPEND,
    against: str | None = None,
    rounds: int = 10,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``boot`` by part, ``targets``, ``unable``, ``samples_ns`` by part.

    ``against``: the command of another build, which is measured too."""
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        initrd = os.path.join(scratch, "initrd")
        with open(initrd, "wb") as file:
            file.write(_initrd())
        commands = _commands(kernel, initrd, memory, append, against)
        entrants: list[Contender] = [
            Marked(name, commands[name]) for name in NAMES if name in only and name in commands
        ]
        samples = interleave("compare linux", entrants, rounds, progress, WARM_UP)
    return {
        "machine": machine.describe(),
        "boot": {part: compared(samples[part], QEMU, PAIRS) for part in PARTS if part in samples},
        "targets": judged(TARGETS, samples.get(INIT, [])),
        "unable": {name: UNABLE[name] for name in only if name not in commands},
        "samples_ns": {part: {s.name: s.nanoseconds for s in each} for part, each in samples.items()},
    }


def _initrd() -> bytes:
    with open(os.path.join(LIBEXEC, "mark"), "rb") as file:
        return newc(["dev"], {"init": file.read()})


def _commands(kernel: str, initrd: str, memory: str, append: str, against: str | None) -> dict[str, list[str]]:
    """The command of each contender that can be measured."""
    boot = ["kvm-boot", kernel, "--memory", memory, "--initrd", initrd, "--append", append]
    ours = own_command(*boot)
    found = {OURS: ours, OURS_64: [*ours, "--mode", "linux"]}
    if against is not None:
        found[AGAINST] = [against, *boot]
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is not None:
        words = (
            "-M microvm,acpi=on,rtc=off,pit=on,pic=on,isa-serial=on -enable-kvm -cpu host -nodefaults -no-user-config"
        )
        words += " -display none -no-reboot -serial stdio"
        found[QEMU] = [qemu, *words.split(), "-m", memory, "-kernel", kernel, "-initrd", initrd, "-append", append]
    return found

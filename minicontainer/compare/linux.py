"""``compare linux``: the time from a command's start to the first process of a Linux kernel, for ``kvm-boot``, another
build's ``kvm-boot`` and QEMU's microvm, with the same initrd (csrc/floors/mark.c), kernel command line and memory. All
take turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping
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
MARKS = {INIT: MARK}
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
    """A command that prints marks, timed until the first, from each to the next, and until its end. ``marks``: what is
    measured until a mark -> the mark. Without ``ends`` it is killed after the last mark."""

    def __init__(self, name: str, argv: list[str], marks: Mapping[str, bytes] = MARKS, *, ends: bool = True) -> None:
        self.name, self._argv, self._marks, self._ends = name, argv, tuple(marks.values()), ends
        self.parts = (*marks, TOTAL) if ends else (*marks,)

    def once(self) -> tuple[int, ...]:
        """As Contender."""
        said, taken = b"", list[int]()
        start = since = perf_counter_ns()
        with subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as running:
            assert running.stdout is not None
            while data := os.read(running.stdout.fileno(), 65536):
                said += data
                while len(taken) < len(self._marks) and self._marks[len(taken)] in said:
                    now = perf_counter_ns()
                    taken.append(now - since)
                    since = now
                if len(taken) == len(self._marks) and not self._ends:
                    running.kill()
                    break
        took = perf_counter_ns() - start
        if len(taken) < len(self._marks) or (running.returncode and self._ends):
            raise Error(f"{_reason(said.decode(errors='replace'))} (status {running.returncode})")
        return (*taken, took) if self._ends else (*taken,)

    def close(self) -> None:
        """As Contender."""


def _reason(said: str) -> str:
    """Why a command failed: its own error, below which is what a guest's kernel has printed; else its last line."""
    lines = said.strip().splitlines() or ["no output"]
    return next((line for line in lines if line.startswith("minicontainer: ")), lines[-1])


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
            file.write(marking_initrd())
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


def marking_initrd() -> bytes:
    """An initramfs whose init is mark.c."""
    with open(os.path.join(LIBEXEC, "mark"), "rb") as file:
        return newc(["dev"], {"init": file.read()})


def _commands(kernel: str, initrd: str, memory: str, append: str, against: str | None) -> dict[str, list[str]]:
    """The command of each contender that can be measured."""
    boot = ["kvm-boot", kernel, "--memory", memory, "--initrd", initrd, "--append", append]
    ours = own_command(*boot)
    found = {OURS: ours, OURS_64: [*ours, "--mode", "linux"]}
    if against is not None:
        found[AGAINST] = [against, *boot]
    if qemu := qemu_microvm(kernel, initrd, memory, append):
        found[QEMU] = qemu
    return found


def qemu_microvm(kernel: str, initrd: str, memory: str, append: str) -> list[str]:
    """The command of QEMU's smallest machine, with its serial port on stdout; none: it is not installed."""
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        return []
    words = "-M microvm,acpi=on,rtc=off,pit=on,pic=on,isa-serial=on -enable-kvm -cpu host -nodefaults -no-user-config"
    words += " -display none -no-reboot -serial stdio"
    return [qemu, *words.split(), "-m", memory, "-kernel", kernel, "-initrd", initrd, "-append", append]

"""``compare microvm``: a program in a container and in a virtual machine of the same spec, and QEMU's microvm that
executes the same program from an initramfs; and what files cost that the host shares. All take turns."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from minicontainer import rootfs
from minicontainer.compare import machine
from minicontainer.compare.contenders import TOTAL, Contender, own_command
from minicontainer.compare.linux import APPEND, INIT, QEMU, Marked, marking_initrd, qemu_microvm
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import compared
from minicontainer.compare.targets import Target, judged
from minicontainer.microvm import kernels
from minicontainer.native import LIBEXEC

CONTAINER, MACHINE, CONTAINER_FILES, MACHINE_FILES = "container", "machine", "container-files", "machine-files"
IMAGE_FILES = "image-files"  # as machine-files, with --root-image
NAMES = (QEMU, CONTAINER, MACHINE, CONTAINER_FILES, MACHINE_FILES, IMAGE_FILES)
LARGE, SMALL = "2 MB", "1,000 files"  # parts: reads
PARTS = (INIT, TOTAL, LARGE, SMALL)
READING = {INIT: b"one\n", LARGE: b"two\n", SMALL: b"three\n"}
SCRIPT = "echo one; cat /large >/dev/null; echo two; cat /small/* >/dev/null; echo three"
PAIRS = ((MACHINE, QEMU), (MACHINE, CONTAINER), (MACHINE_FILES, CONTAINER_FILES), (IMAGE_FILES, CONTAINER_FILES))
TARGETS = {INIT: (Target(MACHINE, QEMU, 0.6),)}
TARGETS |= dict.fromkeys((LARGE, SMALL), (Target(MACHINE_FILES, CONTAINER_FILES, 3.0),))
MAKER = "mkfs.erofs"
UNABLE = {QEMU: "not installed", IMAGE_FILES: f"{MAKER} (erofs-utils) is not installed"}
WARM_UP = 1  # rounds: each takes seconds


def measure(
    kernel: str | None = None,
    *,
    memory: str = "256M",
    rounds: int = 5,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``microvm`` by part, ``targets``, ``unable``, ``samples_ns`` by part.
    ``kernel``: as of microvm.kernels.find."""
    found = kernels.find(kernel).path
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        commands = _commands(found, scratch, memory)
        entrants: list[Contender] = [
            Marked(name, commands[name], READING) if name.endswith("files") else Marked(name, commands[name])
            for name in NAMES
            if name in only and name in commands
        ]
        samples = interleave("compare microvm", entrants, rounds, progress, WARM_UP)
    starts = {INIT: [s for s in samples.get(INIT, []) if not s.name.endswith("files")]}
    judged_by_part = [(part, judged(TARGETS[part], (samples | starts).get(part, []))) for part in TARGETS]
    return {
        "machine": machine.describe(),
        "microvm": {part: compared((samples | starts)[part], QEMU, PAIRS) for part in PARTS if samples.get(part)},
        "targets": [{**each, "target": f"{part}: {each['target']}"} for part, all_ in judged_by_part for each in all_],
        "unable": {name: UNABLE[name] for name in only if name not in commands},
        "samples_ns": {part: {s.name: s.nanoseconds for s in each} for part, each in samples.items()},
    }


def _commands(kernel: str, scratch: str, memory: str) -> dict[str, list[str]]:
    """The command of each contender that can be measured."""
    root, initrd = os.path.join(scratch, "root"), os.path.join(scratch, "initrd")
    _make_root(root)
    with open(initrd, "wb") as file:
        file.write(marking_initrd())
    own = own_command("run", "-m", memory)
    inside = ["--isolation", "kvm", "--kernel", kernel, root]
    found = {
        CONTAINER: [*own, root, "/mark"],
        MACHINE: [*own, *inside, "/mark"],
        CONTAINER_FILES: [*own, root, "sh", "-c", SCRIPT],
        MACHINE_FILES: [*own, *inside, "sh", "-c", SCRIPT],
    }
    if shutil.which(MAKER):
        found[IMAGE_FILES] = [*own, "--root-image", "erofs", "--read-only", *inside, "sh", "-c", SCRIPT]
    if qemu := qemu_microvm(kernel, initrd, memory, APPEND):
        found[QEMU] = qemu
    return found


def _make_root(root: str) -> None:
    """A root file system with mark.c, a file of 2 MB, and 1,000 of 1 KB."""
    rootfs.busybox(root)
    shutil.copy(os.path.join(LIBEXEC, "mark"), f"{root}/mark")
    with open(f"{root}/large", "wb") as file:
        file.write(os.urandom(2_000_000))
    os.mkdir(f"{root}/small")
    for number in range(1000):
        with open(f"{root}/small/{number}", "wb") as file:
            file.write(os.urandom(1000))

"""``compare microvm``: a program in a container and in a virtual machine of the same spec, which a compiled file starts
too; QEMU's microvm that executes the same program from an initramfs; libkrun's, where it is given; what files cost that
the host shares; and the memory of machines beside their guests'. All take turns."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from minicontainer import rootfs
from minicontainer.compare import krunpeers, machine, machinememory
from minicontainer.compare.contenders import TOTAL, Contender, own_command
from minicontainer.compare.krunpeers import COMPILED_KRUNFW, LIBKRUN, LIBKRUN_LINUX, MACHINE_KRUNFW
from minicontainer.compare.linux import APPEND, INIT, QEMU, Marked, marking_initrd, qemu_microvm
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import compared
from minicontainer.compare.targets import Target, judged, within
from minicontainer.compiled.compilation import compile
from minicontainer.microvm import kernels
from minicontainer.native import LIBEXEC
from minicontainer.spec import Limits
from minicontainer.spec.values import size

CONTAINER, MACHINE, CONTAINER_FILES, MACHINE_FILES = "container", "machine", "container-files", "machine-files"
COMPILED = "compiled"  # as machine, by a compiled file
IMAGE_FILES = "image-files"  # as machine-files, with --root-image
MEMORY = "memory"  # no contender: machinememory.py
NAMES = (QEMU, CONTAINER, MACHINE, COMPILED, *krunpeers.NAMES, CONTAINER_FILES, MACHINE_FILES, IMAGE_FILES, MEMORY)
LARGE, SMALL = "2 MB", "1,000 files"  # parts: reads
PARTS = (INIT, TOTAL, LARGE, SMALL)
READING = {INIT: b"one\n", LARGE: b"two\n", SMALL: b"three\n"}
SCRIPT = "echo one; cat /large >/dev/null; echo two; cat /small/* >/dev/null; echo three"
PAIRS = (
    (MACHINE, QEMU),
    (MACHINE, CONTAINER),
    (MACHINE_KRUNFW, LIBKRUN),
    (MACHINE, LIBKRUN_LINUX),
    (COMPILED_KRUNFW, LIBKRUN),
    (COMPILED, LIBKRUN_LINUX),
    (MACHINE_FILES, CONTAINER_FILES),
    (IMAGE_FILES, CONTAINER_FILES),
)
TARGETS: dict[str, tuple[Target, ...]] = {
    INIT: (
        Target(MACHINE, QEMU, 0.6),
        Target(MACHINE_KRUNFW, LIBKRUN, 0.9),
        Target(MACHINE, LIBKRUN_LINUX, 1.0),
        Target(COMPILED_KRUNFW, LIBKRUN, 0.9),
        Target(COMPILED, LIBKRUN_LINUX, 1.0),
    )
}
TARGETS |= dict.fromkeys((LARGE, SMALL), (Target(MACHINE_FILES, CONTAINER_FILES, 3.0),))
MAKER = "mkfs.erofs"
UNABLE = {QEMU: "not installed", IMAGE_FILES: f"{MAKER} (erofs-utils) is not installed"}
UNABLE |= dict.fromkeys(krunpeers.NAMES, "no library was named (--libkrun)")
WARM_UP = 1  # rounds: each takes seconds


def measure(
    kernel: str | None = None,
    *,
    memory: str = "256M",
    libkrun: str | None = None,
    rounds: int = 5,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``microvm`` by part, ``memory``, ``targets``, ``unable``, ``samples_ns`` by
    part. ``kernel``: as of microvm.kernels.find; ``libkrun``: a libkrun.so, beside which libkrunfw.so.5 is."""
    found, used = kernels.find(kernel).path, {}
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        commands = _commands(found, scratch, memory)
        unable = dict(UNABLE)
        if COMPILED in only:
            commands[COMPILED] = _compiled(COMPILED, scratch, found, memory)
        if libkrun is not None and {*krunpeers.NAMES} & {*only}:
            entry = stack.enter_context(krunpeers.registered(libkrun))
            commands |= _krun_commands(libkrun, entry.name, scratch, found, memory)
            if entry.kernel.lacks:
                del commands[MACHINE_KRUNFW]
                lacks = f"the kernel in libkrunfw lacks {', '.join(entry.kernel.lacks)}"
                unable |= dict.fromkeys((MACHINE_KRUNFW, COMPILED_KRUNFW), lacks)
            elif COMPILED_KRUNFW in only:
                commands[COMPILED_KRUNFW] = _compiled(COMPILED_KRUNFW, scratch, entry.name, memory)
        entrants: list[Contender] = [_entrant(name, commands[name]) for name in NAMES if name in {*only} & {*commands}]
        samples = interleave("compare microvm", entrants, rounds, progress, WARM_UP)
        if MEMORY in only:
            used = machinememory.measure(found, memory, os.path.join(scratch, "root"))
    starts = {INIT: [s for s in samples.get(INIT, []) if not s.name.endswith("files")]}
    judged_by_part = [(part, judged(TARGETS[part], (samples | starts).get(part, []))) for part in TARGETS]
    return {
        "machine": machine.describe(),
        "microvm": {part: compared((samples | starts)[part], QEMU, PAIRS) for part in PARTS if samples.get(part)},
        "memory": used,
        "targets": [{**each, "target": f"{part}: {each['target']}"} for part, all_ in judged_by_part for each in all_]
        + within(machinememory.LIMITS, used),
        "unable": {name: unable[name] for name in only if name not in (*commands, MEMORY)},
        "samples_ns": {part: {s.name: s.nanoseconds for s in each} for part, each in samples.items()},
    }


def _entrant(name: str, command: list[str]) -> Contender:
    if name.endswith("files"):
        return Marked(name, command, READING)
    return Marked(name, command, ends=not name.startswith(LIBKRUN))  # mark.c does not end libkrun's machine


def _compiled(name: str, scratch: str, kernel: str, memory: str) -> list[str]:
    """The file of a machine with this kernel."""
    file = os.path.join(scratch, name)
    root = os.path.join(scratch, "root")
    compile(["/mark"], file, rootfs=root, isolation="kvm", kernel=kernel, limits=Limits(memory=memory), terminal=False)
    return [file]


def _krun_commands(library: str, registered: str, scratch: str, kernel: str, memory: str) -> dict[str, list[str]]:
    """The commands of krunpeers.py; the kernel in libkrunfw is ``registered``."""
    root, initrd, mib = os.path.join(scratch, "root"), os.path.join(scratch, "initrd"), size("memory", memory) >> 20
    run = own_command("run", "-m", memory, "--isolation", "kvm", "--kernel", registered)
    found = {
        LIBKRUN: krunpeers.own_kernel(library, mib, root, "/mark"),
        MACHINE_KRUNFW: [*run, root, "/mark"],
    }
    if command := krunpeers.linux(found[LIBKRUN], kernel, initrd, scratch):
        found[LIBKRUN_LINUX] = command
    return found


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

"""``compare devices``: the disk and the network of a virtual machine, beside QEMU's microvm with the same kernel,
command line, memory, image and bridge.

One program (csrc/floors/transfer.c) runs in both. It reads blocks of one file on the same erofs with O_DIRECT, one
after the other, and exchanges bytes by TCP with one server on the host; the host's clock measures its marks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from minicontainer import rootfs
from minicontainer.compare import machine, qemuguest
from minicontainer.compare.contenders import Contender, own_command
from minicontainer.compare.linux import QEMU, Marked, qemu_microvm
from minicontainer.compare.network import NETWORK, serving
from minicontainer.compare.networkworker import BULK
from minicontainer.compare.rounds import interleave
from minicontainer.compare.statistics import compared
from minicontainer.compare.targets import Target, judged
from minicontainer.container.machine import rootimage
from minicontainer.microvm import kernels
from minicontainer.microvm.machines import COMMAND_LINE
from minicontainer.native import LIBEXEC
from minicontainer.network import networks
from minicontainer.spec import Spec

MACHINE = "machine"
NAMES = (QEMU, MACHINE)
FILE, FILE_SIZE, READS, TRIPS = "data", 32 << 20, 2000, 200
BOOT, CONNECT = "boot", "connect"  # parts of which nothing is said
READING, SENDING = f"{READS:,} reads of 4 KiB", f"{BULK >> 20} MiB sent"
RECEIVING, TRIPPING = f"{BULK >> 20} MiB received", f"{TRIPS:,} round trips"
PARTS = (READING, SENDING, RECEIVING, TRIPPING)
MARKS = {part: b"=%d=" % n for n, part in enumerate((BOOT, READING, CONNECT, SENDING, RECEIVING, TRIPPING))}
TARGET = Target(MACHINE, QEMU, 1.0)
UNABLE = {QEMU: "not installed"}
WARM_UP = 1  # rounds: each takes seconds


def measure(
    kernel: str | None = None,
    *,
    memory: str = "256M",
    rounds: int = 5,
    only: Collection[str] = NAMES,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``devices`` by part, ``targets``, ``unable``, ``samples_ns`` by part.
    ``kernel``: as of microvm.kernels.find. UnsupportedError: there is no root, or no tool that makes an erofs."""
    with ExitStack() as stack:
        commands = _commands(stack, kernels.find(kernel), memory)
        entrants: list[Contender] = [
            Marked(name, commands[name], MARKS) for name in NAMES if name in {*only} & {*commands}
        ]
        samples = interleave("compare devices", entrants, rounds, progress, WARM_UP)
    judged_by_part = [(part, judged([TARGET], samples.get(part, []))) for part in PARTS]
    return {
        "machine": machine.describe(),
        "devices": {part: compared(samples[part], QEMU, [TARGET[:2]]) for part in PARTS if samples.get(part)},
        "targets": [{**each, "target": f"{part}: {each['target']}"} for part, all_ in judged_by_part for each in all_],
        "unable": {name: UNABLE[name] for name in only if name not in commands},
        "samples_ns": {part: {s.name: s.nanoseconds for s in each} for part, each in samples.items()},
    }


def _commands(stack: ExitStack, kernel: kernels.LinuxKernel, memory: str) -> dict[str, list[str]]:
    """The command of each contender that can be measured; what they use lasts as long as ``stack``."""
    network = networks.create(NETWORK, ipv6=False)
    stack.callback(networks.remove, NETWORK)
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
    root = os.path.join(scratch, "root")
    _make_root(root)
    spec = Spec(("/transfer",), rootfs=root, read_only=True, isolation="kvm", root_image="erofs")
    image = rootimage.open_image(spec)
    stack.callback(os.close, image)
    port = stack.enter_context(serving(0, 0))
    words = [str(READS), str(network.gateway), str(port), str(BULK), str(TRIPS)]
    run = own_command("run", "-m", memory, "--isolation", "kvm", "--kernel", kernel.path, "--root-image", "erofs")
    found = {MACHINE: [*run, "--read-only", "--network", NETWORK, root, "/transfer", f"/{FILE}", *words]}
    initrd = os.path.join(scratch, "initrd")
    if qemu := qemu_microvm(kernel.path, initrd, memory, COMMAND_LINE):
        address = f"{network.subnet[-2]}/{network.subnet.prefixlen}"  # leases begin with the first
        with open(initrd, "wb") as file:
            file.write(qemuguest.initrd(kernel, root, address, " ".join(["/disk/transfer", f"/disk/{FILE}", *words])))
        tap = stack.enter_context(qemuguest.tap_on(network, f"mctap{os.getpid()}"))
        found[QEMU] = [*qemu, *qemuguest.devices(os.readlink(f"/proc/self/fd/{image}"), tap)]
    return found


def _make_root(root: str) -> None:
    """A root file system with transfer.c, and the file that it reads."""
    rootfs.busybox(root)
    shutil.copy(os.path.join(LIBEXEC, "transfer"), f"{root}/transfer")
    with open(f"{root}/{FILE}", "wb") as file:
        for _ in range(FILE_SIZE >> 20):
            file.write(os.urandom(1 << 20))

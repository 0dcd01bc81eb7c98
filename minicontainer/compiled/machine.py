"""A compiled virtual machine (``isolation`` kvm): ``struct mc_machine_part``.

Theory of operation. The plan of the file is that of the monitor's container, and the guest's plan lies in what its init
gets (container/machine/). The kernel's files stay in their places, most of them in the user's cache: a run opens them
by path, and compares what statx(2) says of them. The guest itself is not started at compile time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from minicontainer import usercache
from minicontainer.compiled.payload import Payload, checksum, places
from minicontainer.compiled.variants import SENTINEL, Name, Variant, texts
from minicontainer.container import facts, parent, placeholders
from minicontainer.container.host import Host
from minicontainer.container.machine import division, guest, monitor
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux.processes import check_proc
from minicontainer.microvm import initramfs, keeping, machines
from minicontainer.native import lib
from minicontainer.plan import Plan
from minicontainer.records import replace
from minicontainer.spec import Spec

FILES = tuple(f"file-{i}" for i in range(lib.MC_MACHINE_FILES))
OWN = ("kvm", "machine", "run", "report", "program")  # in the order of struct mc_guest_part
INPUTS = (*OWN, *FILES)  # of the monitor's plan, beside those of a container


class Guest(NamedTuple):
    """The guest's plan for a spec, with or without a terminal. ``host``: the facts for the whole spec."""

    spec: Spec
    host: Host
    plan: Plan


def refuse(spec: Spec) -> None:
    """SpecError for what a machine, or the file of one, cannot have."""
    division.check(spec)
    if spec.root_image is not None:
        reason = "needs more than a file can hold: an image that each run may have to make"
        raise SpecError("root_image", spec.root_image, reason, "leave it out")


def outside(spec: Spec, exe: str, *, tty: bool) -> Variant:
    """The container of the monitor; ``exe`` as for ``variants.variant``."""
    outer = division.outer(replace(spec, tty=tty))
    check_proc()
    host = facts.gather(outer, exe)._replace(sends_upper=False, window=SENTINEL if tty else None)
    plan = monitor.compile(outer, host, division.devices(spec, is_reachable=False))
    return Variant(outer, host, plan, parent.template(outer, host, plan))


def inside(spec: Spec, *, tty: bool) -> Guest:
    """The guest, whose window is set by the monitor."""
    spec = replace(spec, tty=tty)
    host = facts.gather(spec)._replace(window=None)
    return Guest(spec, host, guest.compile(spec, host))


def program(made: Guest) -> Variant:
    """What executes the program."""
    spec, host, plan = made
    return Variant(division.inner(spec), division.inner_host(host, spec), plan, None)


def put(payload: Payload, monitors: Sequence[Variant], guests: Sequence[Guest], name: Name) -> None:
    """Writes the struct mc_machine_part. UnsupportedError: there is no KVM, or no kernel that can be used."""
    target, spec = payload.struct.machine, guests[0].spec
    made = _made(spec)
    try:
        rows = [_file(payload, fd, made.kernel.path) for fd in made.files]
    finally:
        for fd in made.files:
            os.close(fd)
    target.data, target.files = payload.span(made.data), payload.array("struct mc_machine_file", rows)
    with open(monitor.PROGRAM, "rb") as file:
        target.program = payload.span(file.read())
    kvm = os.open(machines.KVM, os.O_RDWR | os.O_CLOEXEC)
    try:
        target.processor = checksum(keeping.processor(kvm))
    finally:
        os.close(kvm)
    for outer, inner in zip(monitors, guests, strict=True):
        _put_guest(payload, target.terminal if inner.spec.tty else target.plain, outer, inner, name)


def _made(spec: Spec) -> machines.Machine:
    """The machine. The first one of a packed kernel has the unpacked one in its data, which each run would copy; the
    next one names the file in which it was then kept."""
    devices = division.devices(spec, is_reachable=False)
    asked = spec.kernel, division.memory(spec), division.cpus(spec), devices
    made = machines.make(*asked)
    if len(made.data) <= keeping.DATA_MAX:
        return made
    for fd in made.files:
        os.close(fd)
    return machines.make(*asked)


def _file(payload: Payload, fd: int, kernel: str) -> tuple[int, ...]:
    """A struct mc_machine_file."""
    path, info = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd)
    try:
        is_there = os.path.samestat(os.stat(path), info)
    except OSError:
        is_there = False
    if not is_there:
        reason = "a file of it cannot be kept in the user's cache, where a run would find it"
        raise UnsupportedError("machine", kernel, reason, "a home directory that can be written")
    kept = usercache.directory(initramfs.KIND)
    is_kept = kept is not None and path.startswith(f"{os.path.dirname(os.path.realpath(kept))}/")
    what = "initramfs" if os.path.basename(os.path.dirname(path)) == initramfs.KIND and is_kept else "kernel"
    device = os.major(info.st_dev) << 32 | os.minor(info.st_dev)
    changed = 0 if is_kept else info.st_ctime_ns
    numbers = device, info.st_ino, info.st_size, info.st_mtime_ns, changed
    return payload.string(what), payload.string(path), *numbers


def _put_guest(payload: Payload, target: Any, outer: Variant, inner: Guest, name: Name) -> None:
    """Writes a struct mc_guest_part."""
    spec, host, plan = inner
    start = guest.start(plan, spec, host, placeholders.ID)
    target.start = payload.span(start)
    target.ids = payload.array("uint32_t", places(start, placeholders.ID_BYTES))
    target.texts = payload.list(texts(division.of_guest(spec), plan, name))[0]
    target.kvm, target.machine, target.run, target.report, target.program = (outer.plan.slots[name] for name in OWN)
    target.files = [outer.plan.slots[name] for name in FILES]

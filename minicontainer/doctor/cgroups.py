"""Where the cgroup controllers are, where containers' cgroups can be made, and what works there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from minicontainer.container.cgroup import devices, placement
from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.doctor.trial import held, walk
from minicontainer.errors import UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup, hierarchy

CONTROLLERS = {  # name -> the options of run that it enforces
    "cpu": "--cpus, --cpu-shares",
    "cpuset": "--cpuset-cpus",
    "io": "--device-read-bps ...",
    "memory": "--memory ...",
    "pids": "--pids-limit",
}
PAUSE_LIMIT = 2.0  # seconds that a freeze may take


def probes() -> list[Probe]:
    """The hierarchy, each controller, the caller's place in it, and what works in a cgroup made there."""
    return [
        Probe("cgroup v2", mounted),
        *(Probe(name, partial(controller, name)) for name in CONTROLLERS),
        Probe("delegation", delegation),
        Probe("CLONE_INTO_CGROUP", born),
        Probe("cgroup.freeze", frozen),
        Probe("cgroup.kill", killed),
        Probe("pressure", pressure),
        *([Probe("device program", restricted)] if os.geteuid() == 0 else []),
    ]


def mounted() -> Verdict:
    """Where version 2 is mounted, and what else is."""
    mount = cgroupfs.unified()
    old = sum(m.version == 1 for m in cgroupfs.mounts())
    beside = f", beside {old} of version 1" if old else ""
    if mount.root != "/":
        return note(f"at {mount.path}, which shows {mount.root} alone{beside}")
    return ok(f"at {mount.path}{beside}")


def controller(name: str) -> Verdict:
    """Whether version 2 has it, else where it is."""
    if name in hierarchy().controllers:
        return ok(f"on v2: {CONTROLLERS[name]}")
    reason, hint = cgroupfs.absence(name)
    return no(f"{reason}: no {CONTROLLERS[name]}", hint)


def delegation() -> Verdict:
    """Where this caller's containers have their cgroups, and which controllers can be had there."""
    base = placement.base()
    given = base.controllers
    has, lacks = sorted(CONTROLLERS.keys() & given), sorted(CONTROLLERS.keys() - given)
    if not lacks:
        return ok(f"{base.path}: {' '.join(has)}")
    remedy = placement.SERVICE_HINT if hierarchy().controllers & set(lacks) else ""
    return note(f"{base.path}: {' '.join(has) or 'no controllers'}, without {' '.join(lacks)}", remedy)


def born() -> Verdict:
    """A child that is born in a cgroup."""
    with group() as place:
        walk([], cgroup=place.birth_fd())
    return ok()


def frozen() -> Verdict:
    """Freezes a process and thaws it."""
    with group() as place, held([], cgroup=place.birth_fd()):
        place.freeze(PAUSE_LIMIT)
        place.thaw(PAUSE_LIMIT)
    return ok()


def killed() -> Verdict:
    """Kills a process by its cgroup."""
    with group() as place, held([], cgroup=place.birth_fd()):
        if not os.path.exists(f"{place.path}/cgroup.kill"):
            return no("there is no cgroup.kill: each process is killed by itself", "Linux 5.14 or later")
        place.write("cgroup.kill", "1")
        if not place.wait("populated", 0, PAUSE_LIMIT):
            return no("a process survives it")
    return ok()


def pressure() -> Verdict:
    """Whether a cgroup tells of stalls (psi)."""
    with Cgroup.own() as own:
        own.pressure("cpu")
    return ok()


@contextmanager
def group() -> Iterator[Cgroup]:
    """A cgroup as a container gets it; afterwards it is gone."""
    try:
        made = placement.place(os.urandom(6).hex(), {})
    except UnsupportedError:
        made = None
    if made is None:
        raise UnsupportedError("cgroup", None, "no cgroup can be made here: see delegation")
    try:
        yield made
    finally:
        made.remove(kill=True)


@contextmanager
def home_restored() -> Iterator[None]:
    """The containers' common home is gone at the end of the block if it was not there before."""
    try:
        home = f"{placement.base().path}/{placement.home_name()}"
    except UnsupportedError:
        home = ""
    was_there = os.path.isdir(home)
    try:
        yield
    finally:
        if home and not was_there:
            try:
                os.rmdir(home)
            except OSError:
                pass  # nothing was made there, or a container of somebody's lives there by now


def restricted() -> Verdict:
    """Whether a cgroup takes the program that says which devices its processes may use."""
    with group() as place:
        reason = devices.restrict(place, devices.ALWAYS)
    return ok() if not reason else no(f"any device of which there is a node can be used: {reason}", "CONFIG_CGROUP_BPF")

"""The cgroup controllers, the place of containers' cgroups, and the features that work there."""

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

CONTROLLERS = {  # controller -> the options of run that need it
    "cpu": "--cpus, --cpu-shares",
    "cpuset": "--cpuset-cpus",
    "io": "--device-read-bps ...",
    "memory": "--memory ...",
    "pids": "--pids-limit",
}
PAUSE_LIMIT = 2.0  # seconds to wait for a freeze


def probes() -> list[Probe]:
    """Probes of the hierarchy, each controller, the delegation to the caller, and the features of a new cgroup."""
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
    """Where version 2 is mounted, and whether version 1 is, too."""
    mount = cgroupfs.unified()
    old = sum(m.version == 1 for m in cgroupfs.mounts())
    beside = f", beside {old} of version 1" if old else ""
    if mount.root != "/":
        return note(f"at {mount.path}, which shows only {mount.root}{beside}")
    return ok(f"at {mount.path}{beside}")


def controller(name: str) -> Verdict:
    """Whether version 2 has the controller, or why not."""
    if name in hierarchy().controllers:
        return ok(f"on v2: {CONTROLLERS[name]}")
    reason, hint = cgroupfs.absence(name)
    return no(f"{reason}: no {CONTROLLERS[name]}", hint)


def delegation() -> Verdict:
    """Where this caller's containers have their cgroups, and with which controllers."""
    base = placement.base()
    available = base.controllers
    has, lacks = sorted(CONTROLLERS.keys() & available), sorted(CONTROLLERS.keys() - available)
    if not lacks:
        return ok(f"{base.path}: {' '.join(has)}")
    remedy = placement.SERVICE_HINT if hierarchy().controllers & set(lacks) else ""
    return note(f"{base.path}: {' '.join(has) or 'no controllers'}, without {' '.join(lacks)}", remedy)


def born() -> Verdict:
    """Clone a child into a cgroup (CLONE_INTO_CGROUP)."""
    with group() as place:
        walk([], cgroup=place.birth_fd())
    return ok()


def frozen() -> Verdict:
    """Freeze a process and thaw it."""
    with group() as place, held([], cgroup=place.birth_fd()):
        place.freeze(PAUSE_LIMIT)
        place.thaw(PAUSE_LIMIT)
    return ok()


def killed() -> Verdict:
    """Kill a process by cgroup.kill."""
    with group() as place, held([], cgroup=place.birth_fd()):
        if not os.path.exists(f"{place.path}/cgroup.kill"):
            return no("there is no cgroup.kill: processes are killed one by one", "Linux 5.14 or later")
        place.write("cgroup.kill", "1")
        if not place.wait("populated", 0, PAUSE_LIMIT):
            return no("a process survives cgroup.kill")
    return ok()


def pressure() -> Verdict:
    """Whether cgroups account pressure (psi)."""
    with Cgroup.own() as own:
        own.pressure("cpu")
    return ok()


@contextmanager
def group() -> Iterator[Cgroup]:
    """A cgroup as a container gets it; removed at the end of the block."""
    try:
        made = placement.place(os.urandom(6).hex(), {})
    except UnsupportedError:
        made = None
    if made is None:
        raise UnsupportedError("cgroup", None, "no cgroup can be created: see delegation")
    cgroup = made.group
    try:
        yield cgroup
    finally:
        cgroup.remove(kill=True)


@contextmanager
def home_restored() -> Iterator[None]:
    """Remove the parent cgroup of containers at the end of the block, if it did not exist before."""
    try:
        home = f"{placement.base().path}/{placement.parent_name()}"
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
                pass  # it was not created, or a container runs there by now


def restricted() -> Verdict:
    """Whether a device program (BPF_CGROUP_DEVICE) can be attached to a cgroup."""
    with group() as place:
        reason = devices.restrict(place, devices.ALWAYS)
    return ok() if not reason else no(f"containers can use any device with a node: {reason}", "CONFIG_CGROUP_BPF")

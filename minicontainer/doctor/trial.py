"""Child processes for probes: ``walk`` runs steps in a child, ``held`` keeps a child alive meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from minicontainer import plan as p
from minicontainer.container.host import check_userns_allowed
from minicontainer.native import LIBEXEC
from minicontainer.plan import Slot, Step
from minicontainer.plan.spawn import Spawn

PAUSE = os.path.join(LIBEXEC, "pause")


class Held(NamedTuple):
    """A waiting child: its pid and its Spawn."""

    pid: int
    child: Spawn


def walk(steps: Sequence[Step], flags: str = "0", inputs: Mapping[str, int] | None = None, *, cgroup: int = -1) -> None:
    """Run the steps in a child in new namespaces (``flags``). StepError of the failed step."""
    with Spawn(p.Plan(steps, inputs or ())) as child, by_sysctl(flags):
        child.start(flags, inputs, cgroup)
        child.wait()


@contextmanager
def held(steps: Sequence[Step], flags: str = "0", *, cgroup: int = -1) -> Iterator[Held]:
    """A child that runs the steps and then waits; killed at the end of the block."""
    last = [p.dup3(Slot("stdin"), 0), p.execve([PAUSE], ["pause"], [])]
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        with Spawn(p.Plan([*steps, *last], ["stdin"])) as child:
            with by_sysctl(flags):
                pid = child.start(flags, {"stdin": read}, cgroup)
            try:
                yield Held(pid, child)
            finally:
                child.kill()
                child.wait()
    finally:
        os.close(read)
        os.close(write)


@contextmanager
def by_sysctl(flags: str) -> Iterator[None]:
    """Name the sysctl (UnsupportedError) if one is the cause of a refused user namespace."""
    try:
        yield
    except OSError as error:
        if "CLONE_NEWUSER" in flags and error.errno in (errno.EPERM, errno.ENOSPC):
            check_userns_allowed()
        raise


def mount_flags() -> str:
    """The clone flags that give the caller a mount namespace of its own."""
    return "CLONE_NEWNS" if os.geteuid() == 0 else "CLONE_NEWUSER|CLONE_NEWNS"


def private() -> list[Step]:
    """The first step in a mount namespace: no later mount propagates out of it."""
    return [p.mount(None, "/", None, "MS_REC|MS_PRIVATE")]


def own_map() -> list[Step]:
    """The first steps in a user namespace: map the caller's id to 0, as any user may (user_namespaces(7))."""
    steps: list[Step] = []
    maps = (("setgroups", "deny"), ("uid_map", f"0 {os.geteuid()} 1"), ("gid_map", f"0 {os.getegid()} 1"))
    for name, content in maps:
        steps.append(p.openat(f"/proc/self/{name}", "O_WRONLY|O_CLOEXEC", name))
        steps += [p.write(Slot(name), content), p.close(Slot(name))]
    return steps

"""Namespaces (namespaces(7)) and what belongs to them: clone3, unshare, setns, pivot_root, host names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from minicontainer.linux.flags import flags as number
from minicontainer.native import lib, syscall
from minicontainer.plan import Plan, const
from minicontainer.spawn import Spawn

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def clone3(
    plan: Plan, flags: int | str = 0, inputs: Mapping[str, int] | None = None, cgroup: int = -1
) -> tuple[int, int]:
    """clone3(2) of a child that walks ``plan``: (pid, pidfd), once it has exec'd or ended.

    ``flags`` of CLONE_NEW*; ``inputs`` a descriptor above 2 for each of the plan's; ``cgroup`` the directory to be born
    in. OSError for clone3, or for the step that failed, by its call."""
    child = Spawn(plan)
    child.start(const(flags) if isinstance(flags, str) else flags, inputs, cgroup)
    return child.pid, child.pidfd


def unshare(flags: int | str) -> None:
    """unshare(2) of the calling thread."""
    syscall("unshare", lib.SYS_unshare, number(flags), what=(flags,))


def setns(target: int | str, flags: int | str = 0) -> None:
    """setns(2): joins the namespace of a /proc/PID/ns file (path or descriptor), or those of a pidfd by ``flags``."""
    fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC) if isinstance(target, str) else target
    try:
        syscall("setns", lib.SYS_setns, fd, number(flags), what=(target, flags))
    finally:
        if isinstance(target, str):
            os.close(fd)


def namespaces(pid: int | str = "self") -> dict[str, str]:
    """Kind -> ``uts:[4026531838]`` of a process: the text changes with the namespace."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS if os.path.exists(f"/proc/{pid}/ns/{kind}")}


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall("pivot_root", lib.SYS_pivot_root, path(new_root), path(put_old), what=(new_root, put_old))


def sethostname(name: str) -> None:
    """sethostname(2) of this uts namespace."""
    data = os.fsencode(name)
    syscall("sethostname", lib.SYS_sethostname, data, len(data), what=(name,))


def setdomainname(name: str) -> None:
    """setdomainname(2) of this uts namespace."""
    data = os.fsencode(name)
    syscall("setdomainname", lib.SYS_setdomainname, data, len(data), what=(name,))


def path(name: str) -> bytes:
    """A path for the kernel. ValueError for a NUL byte, at which it would end."""
    data = os.fsencode(name)
    if b"\0" in data:
        raise ValueError(f"{name!r} holds a NUL byte")
    return data

"""Remedies for the errno values that mislead in a cgroup v2 hierarchy (cgroups(7), cgroup-v2.rst)."""

from __future__ import annotations

import errno

from minicontainer.linux import cgroupfs

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc")


def mkdir_hint(error: OSError) -> str:
    """Why a cgroup could not be created."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this cgroup is not yours: systemd-run --user --scope -p Delegate=yes"
    if error.errno == errno.EAGAIN:
        return "cgroup.max.descendants or cgroup.max.depth of a cgroup above is reached"
    return ""


def file_hint(number: int, name: str, data: str = "") -> str:
    """Why file ``name`` of a cgroup could not be read, or ``data`` not be written to it."""
    controller = name.partition(".")[0]
    if number == errno.ENOENT and controller in CONTROLLERS and not name.endswith(".pressure"):
        remedy = f"is the {controller} controller enabled? enable({controller!r}) of the parent"
        return _absence(controller) or remedy
    if number == errno.ENOENT and name == "cgroup.subtree_control":
        wanted = [word.lstrip("+-") for word in data.split()]
        return next(filter(None, map(_absence, wanted)), "a controller must be enabled in each cgroup above")
    if number in (errno.EOPNOTSUPP, errno.ENOENT) and name.endswith(".pressure"):
        return "this kernel does not account pressure: boot with psi=1"
    if number == errno.EBUSY and name == "cgroup.subtree_control":
        return "it has member processes: move them to a leaf, or a child still uses the controller"
    if number == errno.EBUSY and name == "cgroup.procs":
        return "its children have controllers, so processes go to the leaves"
    if number in (errno.EACCES, errno.EPERM):
        return "not delegated to this user"
    return ""


def _absence(controller: str) -> str:
    """Why version 2 lacks the controller, and the remedy; "" if it has it."""
    if cgroupfs.has(controller):
        return ""
    reason, hint = cgroupfs.absence(controller)
    return f"{reason}: {hint}"

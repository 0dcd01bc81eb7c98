"""The id maps of user namespaces (user_namespaces(7)), and the parent-side plan that writes them.

A process may map one id, its own, from inside the new namespace. The set-uid programs newuidmap(1) and newgidmap(1) map
the ranges of /etc/subuid and /etc/subgid; root may map any id. The parent-side plan runs these programs, or writes
root's maps: in a second thread, while the cloning thread sleeps until the child's exec (csrc/plan/parent.c), or in the
monitor of a detached container.
"""

from __future__ import annotations

import os

from minicontainer import plan as p
from minicontainer.container.ids.ranges import subid_entries
from minicontainer.errors import UnsupportedError
from minicontainer.linux.userns import is_first_user_namespace
from minicontainer.plan import Builder, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.container.child import Child
    from minicontainer.container.network import veth
    from minicontainer.plan import Plan
    from minicontainer.plan.step import Step
    from minicontainer.spec import Spec

OWN_MAPS = ("/proc/self/uid_map", "/proc/self/gid_map")
Extent = tuple[int, int, int]  # inside, outside, count
Outer = tuple[tuple[str, ...], ...]  # see outer_maps


def own_maps(userns: str) -> tuple[str, str] | None:
    """The maps that the child writes itself, of one id; None where the parent-side plan can map ranges."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return None if is_first_user_namespace() or _has_further_ids() else ("0 0 1", "0 0 1")
    if subordinate("/etc/subuid", uid) and _which("newuidmap") and _which("newgidmap"):
        return None
    inside = (uid, gid) if userns == "keep-id" else (0, 0)
    return f"{inside[0]} {uid} 1", f"{inside[1]} {gid} 1"


def _which(tool: str) -> str | None:
    import shutil  # not for root's starts, which need none

    return shutil.which(tool)


def _has_further_ids() -> bool:
    return all(sum(count for _, _, count in identity_extents(path)) > 1 for path in OWN_MAPS)


def may_set_groups() -> bool:
    """Whether this process's user namespace, and so those made in it, permit setgroups(2) (user_namespaces(7))."""
    with open("/proc/self/setgroups", encoding="utf-8") as f:
        return f.read().strip() != "deny"


def maps_group(spec: Spec, userns: str, group: int) -> bool:
    """Whether a group is mapped in the user namespace that a container of the spec gets, or has."""
    return any(first <= group < first + count for first, count in group_extents(spec, userns))


def group_extents(spec: Spec, userns: str) -> list[tuple[int, int]]:
    """(first id inside, count) of each range of group ids that are mapped in the container's user namespace."""
    if userns in ("private", "keep-id") and os.geteuid() != 0:
        ranges = subordinate("/etc/subgid", os.geteuid()) or (0, 0)
        return [(inside, count) for inside, _, count in extents(userns, os.getegid(), ranges)]
    process = "self"  # the maps of root's containers map each group to itself
    if userns == "join":
        joined = spec.joined("userns") or ""
        process = joined.removeprefix("/proc/").removesuffix("/ns/user")
        if joined != f"/proc/{process}/ns/user" or not process.isdigit():
            return [(0, 1)]
    return [(inside, count) for inside, _, count in identity_extents(f"/proc/{process}/gid_map")] or [(0, 1)]


def subordinate(path: str, uid: int) -> tuple[int, int] | None:
    """The first range (start, count) of /etc/subuid or /etc/subgid for the user ``uid``; None where the user has
    none."""
    import pwd

    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass
    return next(((start, count) for name, start, count in subid_entries(path) if name in names), None)


def extents(userns: str, own: int, ranges: tuple[int, int]) -> list[Extent]:
    """The extents of a map of the caller's id and a subordinate range. ``private``: the caller's id is 0 inside and the
    range follows. ``keep-id``: the caller's id is itself inside, the range is below and above it."""
    start, count = ranges
    if userns != "keep-id":
        return [(0, own, 1), (1, start, count)]
    below = min(own, count)
    parts = [(0, start, below), (own, own, 1), (own + 1, start + below, count - below)]
    return [part for part in parts if part[2] > 0]


def identity_extents(path: str) -> list[Extent]:
    """The extents that map every id of a user namespace to itself, from its map at ``path`` (files keep their
    owners)."""
    with open(path, encoding="utf-8") as f:
        rows = [line.split() for line in f]
    return [(int(inside), int(inside), int(count)) for inside, _, count in rows]


def outer_maps(userns: str) -> Outer:
    """What maps the ids of the container from outside. For root: each file of /proc/PID and what is written to it; else
    the path of newuidmap and of newgidmap, and their arguments. UnsupportedError: the caller has no range."""
    if os.geteuid() == 0:
        names = ("uid_map", "gid_map")
        return tuple(
            (name, "\n".join("{} {} {}".format(*e) for e in identity_extents(f"/proc/self/{name}"))) for name in names
        )
    return tuple((_which(tool) or tool, *_argv(tool, userns, path, own())) for tool, path, own in TOOLS)


TOOLS = (("newuidmap", "/etc/subuid", os.geteuid), ("newgidmap", "/etc/subgid", os.getegid))


def _argv(tool: str, userns: str, path: str, own: int) -> list[str]:
    """The arguments of newuidmap(1): the process (C fills it in), and the extents."""
    ranges = subordinate(path, os.geteuid())
    if not ranges:
        raise UnsupportedError("userns", userns, f"no range for user id {os.geteuid()} in {path}")
    return [tool, "PID", *(str(number) for extent in extents(userns, own, ranges) for number in extent)]


def parent_plan(outer: Outer, endpoint: veth.Endpoint | None) -> Plan:
    """The parent-side plan that writes the maps of the new user namespace. Inputs: ``pid answer helper-output`` (the
    file for the error output of newuidmap and newgidmap)."""
    from minicontainer.container.network import veth

    b = Builder()
    pid, answer, output, proc = b.input("pid"), b.input("answer"), b.input("helper-output"), Slot("proc")
    if endpoint is not None:
        veth.prepare(b, endpoint)
    b.phase = "user namespace"
    b.add(p.await_child())
    if len(outer[0]) == 2:
        b.add(p.open_proc(pid, proc))
        for name, text in outer:
            b.add(p.openat(name, "O_WRONLY|O_CLOEXEC", name, at=proc), p.write(Slot(name), text), p.close(Slot(name)))
        b.add(p.close(proc))
    else:
        for path, *argv in outer:
            b.add(p.run(path, argv, pid, output))
    if endpoint is not None:
        veth.connect(b, endpoint, pid)
    b.phase = "user namespace"
    b.add(*[p.let_go(answer)] * (1 if endpoint is None else 2))
    return b.plan()


def prepare(child: Child) -> dict[str, int]:
    """Creates the file for the error output of helper programs; returns the inputs of the parent-side plan."""
    child.helper_output = os.memfd_create("minicontainer-helper-output", os.MFD_CLOEXEC)
    return {"helper-output": child.helper_output}


def refusal(child: Child, step: Step) -> UnsupportedError:
    """The error of newuidmap or newgidmap that failed, from its output."""
    argv: tuple[str, ...] = step.args[1]  # type: ignore[assignment]
    output = os.pread(child.helper_output, 4096, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    return UnsupportedError(argv[0], child.spawn.struct.pid, output or "ended without a word")

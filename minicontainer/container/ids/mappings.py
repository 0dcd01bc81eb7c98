"""Id maps of user namespaces (user_namespaces(7)): which, and who writes them.

An ordinary user may map one id, his own, from inside. Ranges of /etc/subuid are written by the set-uid newuidmap(1)
and newgidmap(1), and root's maps by root: that is the parent-side plan, done by a thread of its own while the thread
that clones sleeps until the child's exec (csrc/plan/parent.c), or by the container's monitor.
"""

from __future__ import annotations

import os
import pwd
import re

from minicontainer import plan as p
from minicontainer.container.child import Child
from minicontainer.container.ids.ranges import entries
from minicontainer.container.network import veth
from minicontainer.errors import UnsupportedError
from minicontainer.linux import namespaces
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.plan.step import Step
from minicontainer.spec import Spec

OWN_MAPS = ("/proc/self/uid_map", "/proc/self/gid_map")
Extent = tuple[int, int, int]  # inside, outside, count


def own_maps(userns: str) -> tuple[str, str] | None:
    """The maps that the child can write itself: one id; None where ranges are to be had, by the parent-side plan."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return None if namespaces.is_first_user_namespace() or _has_further_ids() else ("0 0 1", "0 0 1")
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
    with open("/proc/self/setgroups", encoding="ascii") as f:
        return f.read().strip() != "deny"


def maps_group(spec: Spec, userns: str, group: int) -> bool:
    """Whether a group is mapped in the user namespace that a container of the spec gets, or has."""
    return any(first <= group < first + count for first, count in group_extents(spec, userns))


def group_extents(spec: Spec, userns: str) -> list[tuple[int, int]]:
    """Of the group ids that are mapped where somebody outside maps them: the first inside, and how many."""
    if userns in ("private", "keep-id") and os.geteuid() != 0:
        ranges = subordinate("/etc/subgid", os.geteuid()) or (0, 0)
        return [(inside, count) for inside, _, count in extents(userns, os.getegid(), ranges)]
    of = "self"  # root's maps have each group as itself
    if userns == "join":
        process = re.fullmatch(r"/proc/(\d+)/ns/user", spec.joined("userns") or "")
        if not process:
            return [(0, 1)]
        of = process[1]
    return [(inside, count) for inside, _, count in identity_extents(f"/proc/{of}/gid_map")] or [(0, 1)]


def subordinate(path: str, uid: int) -> tuple[int, int] | None:
    """The first range (start, count) of /etc/subuid or /etc/subgid for the user of ``uid``."""
    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass
    return next(((start, count) for name, start, count in entries(path) if name in names), None)


def extents(userns: str, own: int, ranges: tuple[int, int]) -> list[Extent]:
    """``private``: own id is 0 and the range follows. ``keep-id``: own id is itself, the range lies around it."""
    start, count = ranges
    if userns != "keep-id":
        return [(0, own, 1), (1, start, count)]
    below = min(own, count)
    parts = [(0, start, below), (own, own, 1), (own + 1, start + below, count - below)]
    return [part for part in parts if part[2] > 0]


def identity_extents(path: str) -> list[Extent]:
    """Every id that this process's own namespace has, as itself (root's maps: files keep their owners)."""
    with open(path, encoding="ascii") as f:
        rows = [line.split() for line in f]
    return [(int(inside), int(inside), int(count)) for inside, _, count in rows]


def parent_plan(userns: str, endpoint: veth.Endpoint | None) -> Plan:
    """The parent-side plan: it writes the maps of the new user namespace. Inputs: ``pid answer said`` (where newuidmap
    and newgidmap complain). UnsupportedError: the caller has no range."""
    b = Builder()
    pid, answer, said, proc = b.input("pid"), b.input("answer"), b.input("helper-output"), Slot("proc")
    if endpoint is not None:
        veth.prepare(b, endpoint)
    b.phase = "user namespace"
    b.add(p.await_child())
    if os.geteuid() == 0:
        b.add(p.open_proc(pid, proc))
        for name in ("uid_map", "gid_map"):
            text = "\n".join("{} {} {}".format(*e) for e in identity_extents(f"/proc/self/{name}"))
            b.add(p.openat(name, "O_WRONLY|O_CLOEXEC", name, at=proc), p.write(Slot(name), text), p.close(Slot(name)))
        b.add(p.close(proc))
    else:
        for tool, path, own in TOOLS:
            b.add(p.run(_which(tool) or tool, _words(tool, userns, path, own()), pid, said))
    if endpoint is not None:
        veth.connect(b, endpoint, pid)
    b.phase = "user namespace"
    b.add(*[p.let_go(answer)] * (1 if endpoint is None else 2))
    return b.plan()


TOOLS = (("newuidmap", "/etc/subuid", os.geteuid), ("newgidmap", "/etc/subgid", os.getegid))


def _words(tool: str, userns: str, path: str, own: int) -> list[str]:
    """newuidmap(1): the process (which C fills in), and the extents."""
    ranges = subordinate(path, os.geteuid())
    if not ranges:
        raise UnsupportedError("userns", userns, f"no range for user id {os.geteuid()} in {path}")
    return [tool, "PID", *(str(number) for extent in extents(userns, own, ranges) for number in extent)]


def prepare(child: Child) -> dict[str, int]:
    """The inputs of the parent-side plan: the file in which newuidmap and newgidmap complain."""
    child.helper_output = os.memfd_create("minicontainer-helper-output", os.MFD_CLOEXEC)
    return {"helper-output": child.helper_output}


def refusal(child: Child, step: Step) -> UnsupportedError:
    """What the program that failed had to say."""
    words: tuple[str, ...] = step.args[1]  # type: ignore[assignment]
    told = os.pread(child.helper_output, 4096, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    return UnsupportedError(words[0], child.spawn.struct.pid, told or "ended without a word")

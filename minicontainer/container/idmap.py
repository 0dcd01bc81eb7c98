"""Id maps of user namespaces (user_namespaces(7)): which, and who writes them.

An ordinary user may map one id, his own, from inside. Ranges of /etc/subuid are written by the set-uid newuidmap(1)
and newgidmap(1), and root's maps by root: that is the parent's half, done by a thread of its own while the thread
that clones sleeps until the child's exec (csrc/half.c), or by the container's monitor.
"""

from __future__ import annotations

import os
import pwd
import shutil

from minicontainer import plan as p
from minicontainer.container import attached
from minicontainer.container.child import Child
from minicontainer.container.ids import entries
from minicontainer.errors import UnsupportedError
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.step import Step

Extent = tuple[int, int, int]  # inside, outside, count


def own_maps(userns: str) -> tuple[str, str] | None:
    """The maps that the child can write itself: one id; None where ranges are to be had, by the parent's half."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 or (subordinate("/etc/subuid", uid) and shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    inside = (uid, gid) if userns == "keep-id" else (0, 0)
    return f"{inside[0]} {uid} 1", f"{inside[1]} {gid} 1"


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


def half_plan(userns: str, wire: attached.Wire | None) -> Plan:
    """The parent's half: it writes the maps of the new user namespace. Inputs: ``pid answer said`` (where newuidmap and
    newgidmap complain). UnsupportedError: the caller has no range."""
    b = Builder()
    pid, answer, said, proc = b.input("pid"), b.input("answer"), b.input("said"), Slot("proc")
    if wire is not None:
        attached.take(b, wire)
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
            b.add(p.run(shutil.which(tool) or tool, _words(tool, userns, path, own()), pid, said))
    if wire is not None:
        attached.connect(b, wire, pid)
    b.phase = "user namespace"
    b.add(*[p.let_go(answer)] * (1 if wire is None else 2))
    return b.plan()


TOOLS = (("newuidmap", "/etc/subuid", os.geteuid), ("newgidmap", "/etc/subgid", os.getegid))


def _words(tool: str, userns: str, path: str, own: int) -> list[str]:
    """newuidmap(1): the process (which C fills in), and the extents."""
    ranges = subordinate(path, os.geteuid())
    if not ranges:
        raise UnsupportedError("userns", userns, f"no range for user id {os.geteuid()} in {path}")
    return [tool, "PID", *(str(number) for extent in extents(userns, own, ranges) for number in extent)]


def prepare(child: Child) -> dict[str, int]:
    """What the half of ``child`` gets: where programs complain."""
    child.said = os.memfd_create("minicontainer-said", os.MFD_CLOEXEC)
    return {"said": child.said}


def refusal(child: Child, step: Step) -> UnsupportedError:
    """What the program that failed had to say."""
    words: tuple[str, ...] = step.args[1]  # type: ignore[assignment]
    told = os.pread(child.said, 4096, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    return UnsupportedError(words[0], child.spawn.struct.pid, told or "ended without a word")

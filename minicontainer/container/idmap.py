"""Id maps of user namespaces (user_namespaces(7)): which, and who writes them.

An ordinary user may map one id, his own, from inside. Ranges of /etc/subuid are written by the set-uid newuidmap(1)
and newgidmap(1), and root's maps by root: that is the parent's half, done by a thread of its own while the thread
that clones sleeps until the child's exec (CLONE_VFORK). Whatever goes wrong there, the child is told, never left
waiting: its read ends with "go", with a refusal, or with end of file when this process dies.
"""

from __future__ import annotations

import os
import pwd
import shutil
import threading
from collections.abc import Callable
from typing import Any

from minicontainer.container.ids import entries
from minicontainer.errors import Error, UnsupportedError
from minicontainer.native import lib, now

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


def write_maps(userns: str, pid: int) -> None:
    """Maps the ids of the new user namespace of ``pid``."""
    if os.geteuid() == 0:
        for name in ("uid_map", "gid_map"):
            text = "\n".join("{} {} {}".format(*e) for e in identity_extents(f"/proc/self/{name}"))
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as f:
                f.write(text)
        return
    for tool, path, own in (
        ("newuidmap", "/etc/subuid", os.geteuid()),
        ("newgidmap", "/etc/subgid", os.getegid()),
    ):
        ranges = subordinate(path, os.geteuid())
        if not ranges:
            raise UnsupportedError("userns", userns, f"no range for user id {os.geteuid()} in {path}")
        _run(tool, pid, extents(userns, own, ranges))


def _run(tool: str, pid: int, parts: list[Extent]) -> None:
    import subprocess

    numbers = [str(number) for part in parts for number in part]
    done = subprocess.run(
        [tool, str(pid), *numbers], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise UnsupportedError(tool, str(pid), done.stderr.strip().replace("\n", "; ") or f"exit {done.returncode}")


class ParentHalf:
    """A thread that waits for the child's word, does ``work(pid)``, and releases the child or refuses.

    ``ready`` and ``go`` are the child's ends; it closes its copy of ``go_write`` first.
    ``close()`` ends it all, whatever happened."""

    def __init__(self, work: Callable[[int], None], spawn: Any) -> None:
        self.error: BaseException | None = None
        self.notes: list[tuple[str, str, int, int, int]] = []
        self._work, self._spawn = work, spawn
        self._ready_read, self.ready = os.pipe2(os.O_CLOEXEC)
        self.go, self.go_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="minicontainer-parent-half", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if os.read(self._ready_read, 1) != bytes([lib.MC_READY]):
            return  # the child died, or was never made
        start = now()
        try:
            self._work(self._spawn.pid)
            answer = bytes([lib.MC_GO])
        except (Error, OSError) as e:
            self.error, answer = e, b"x"
        self.notes.append(("user namespace", "write uid_map, gid_map", start, now(), -1 if self.error else 0))
        os.write(self.go_write, answer)

    def close(self) -> None:
        """After the clone has returned: no child waits any more."""
        os.write(self.ready, b"x")  # for a thread that still waits; who was forked meanwhile has the pipe too
        os.close(self.ready)
        self._thread.join()
        for fd in (self._ready_read, self.go, self.go_write):
            os.close(fd)

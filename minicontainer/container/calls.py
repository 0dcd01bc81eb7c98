"""The parent's own calls of a start, as its timeline shows them: from the records that C has written."""

from __future__ import annotations

from minicontainer.linux.cgroupusage import FILES
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from minicontainer.container.machine.run import Run
    from minicontainer.plan.spawn import Spawn
    from minicontainer.plan.timeline import Call

    class Started(Protocol):
        """A Child."""

        notes: list[Call]
        machine: Run | None
        spawn: Spawn
        namespaces: str
        placed: Any
        used: Any

        @property
        def cgroup_path(self) -> str: ...


def made(child: Started) -> Iterator[Call]:
    """All calls of the parent so far."""
    if child.placed is not None:
        yield from _placing(child.placed, child.cgroup_path)
    yield from child.notes
    if child.machine is not None:
        yield from child.machine.notes()
    if child.namespaces:
        spawn, cgroup = child.spawn, "|CLONE_INTO_CGROUP" if child.placed is not None else ""
        call = f"clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND{cgroup}|{child.namespaces})"
        result = spawn.result if spawn.result < 0 else spawn.struct.pid
        yield "clone", call, spawn.struct.start_ns, spawn.struct.end_ns, result
    if child.used is not None:
        yield from _finishing(child.used, child.cgroup_path)


def _placing(placed: Any, path: str) -> Iterator[Call]:
    calls = {
        lib.MC_PLACE_MKDIR: f'mkdir("{path}")',
        lib.MC_PLACE_DEVICES: "bpf(BPF_PROG_ATTACH, {BPF_CGROUP_DEVICE})",
    }
    if placed.pids:
        calls[lib.MC_PLACE_PIDS] = f'write("pids.max", "{ffi.string(placed.pids).decode()}")'
    if placed.owners:
        owners = ffi.string(placed.owners).decode("utf-8", "replace")
        calls[lib.MC_PLACE_LOCK] = f'fcntl("{owners}/{ffi.string(placed.id)[-2:].decode()}", F_OFD_SETLK)'
    for index, call in calls.items():
        record = placed.records[index]
        if record.end_ns and record.result >= 0:
            yield "cgroup", call, record.start_ns, record.end_ns, 0


def _finishing(used: Any, path: str) -> Iterator[Call]:
    calls = [(lib.MC_WAITED, "wait", "waitid(P_PIDFD, WEXITED)"), (lib.MC_REMOVED, "remove", f'rmdir("{path}")')]
    calls += [(number, "measure", f'read("{name}")') for number, name, _ in FILES]
    for index, phase, call in calls:
        record = used.records[index]
        if record.end_ns and (record.result >= 0 or phase == "wait"):
            yield phase, call, record.start_ns, record.end_ns, record.result if phase == "wait" else 0

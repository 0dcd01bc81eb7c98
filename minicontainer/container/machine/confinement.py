"""How a machine of a spec is confined: its monitor, as /proc shows it from outside, and what the guest's plan gives to
the program. For ``run --security-report --isolation kvm``.

The machine is started for this, and ended again while it boots: the monitor's threads are confined before they see
anything of the guest, and have the same rights until their end.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import ExitStack

from minicontainer.container import compiler, facts
from minicontainer.container.machine import division, monitor, start
from minicontainer.container.machine.run import MachineError
from minicontainer.linux import caps
from minicontainer.linux.processes import namespace
from minicontainer.native import lib
from minicontainer.records import replace
from minicontainer.spec import CAPABILITIES, DEFAULT_CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minicontainer.container.child import Child
    from minicontainer.plan import Plan
    from minicontainer.spec import Spec

    Measured = tuple[str, str, str, str]  # area, name, verdict, what was seen
    Status = dict[str, str]  # of /proc/PID/task/TID/status

KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
ROLES = {  # name of a thread (csrc/vmm/confine.c) -> its role, and the capabilities that it needs
    "vmm": (lib.MC_ROLE_MAIN, 0),
    "vmm-processor": (lib.MC_ROLE_PROCESSOR, 0),
    "vmm-device": (lib.MC_ROLE_WORKER, 0),
    "vmm-disk": (lib.MC_ROLE_DISK, 0),
    "vmm-network": (lib.MC_ROLE_NETWORK, 0),
    "vmm-vsock": (lib.MC_ROLE_VSOCK, 0),
    "vmm-files": (lib.MC_ROLE_FILES, monitor.RIGHTS),
}
FILTERS = 2  # of each thread: the container's, and that of its role
CONFINED_MAX = 60  # seconds until all threads are confined
DEFAULT = caps.mask(DEFAULT_CAPABILITIES)


def examine(spec: Spec) -> list[Measured]:
    """The controls of the machine of ``spec``. Errors are those of ``start.start_machine``."""
    spec = replace(spec, tty=False)
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        child, _ = start.boot(spec, (null, null, null), stack)
        stack.callback(child.discard)
        threads = _await_confined(child, spec)
        return [*_monitor(child, threads), *_threads(child, threads), *_program(spec, child)]


# ---- the monitor


def _statuses(pid: int) -> list[Status]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8", errors="replace") as file:
                found.append({key: value.strip() for key, _, value in (line.partition(":") for line in file)})
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def _await_confined(child: Child, spec: Spec) -> list[Status]:
    """The threads of the monitor, when none is about to be confined."""
    assert child.machine is not None
    run, deadline = child.machine, time.monotonic() + CONFINED_MAX
    while time.monotonic() < deadline:
        if run.struct.error or run.struct.failed or run.end:
            raise start.failure(child, spec) or MachineError("machine", "its monitor has ended")
        if run.struct.calls[lib.MC_ROLE_MAIN]:  # which is confined when it has started all others
            threads = [status for status in _statuses(child.spawn.pid) if not _is_kernels(status)]
            if any(status["State"].startswith("Z") for status in threads):
                raise MachineError("machine", "its monitor has ended", run.console)
            if threads and all(_is_confined(status) for status in threads):
                return threads
        time.sleep(0.01)
    raise MachineError("machine", f"its monitor is not confined after {CONFINED_MAX} s")


def _is_confined(status: Status) -> bool:
    """Whether a thread has a role's name and a filter beside the container's (a field since Linux 5.10)."""
    return status["Name"] in ROLES and int(status.get("Seccomp_filters", FILTERS)) >= FILTERS


def _is_kernels(status: Status) -> bool:
    """Whether a thread is one of KVM's (Linux kernel/vhost_task.c), which executes nothing of the monitor's."""
    return status["Name"].startswith("kvm-")


def _monitor(child: Child, threads: list[Status]) -> Iterator[Measured]:
    pid = child.spawn.pid
    for kind in KINDS:
        theirs = namespace(pid, kind)
        verdict = "skip" if not theirs else _verdict(theirs != namespace("self", kind))
        yield "monitor", f"{kind}-namespace", verdict, theirs or "not visible"
    ids = {(status["Uid"].split()[1], status["Gid"].split()[1]) for status in threads}
    shown = ", ".join(f"{uid}:{gid}" for uid, gid in sorted(ids))
    yield "monitor", "ids", _verdict(all(uid != "0" for uid, _ in ids)), f"{shown}, as the caller sees them"
    bounding = _masks(threads, "CapBnd")
    yield "monitor", "bounding-capabilities", _verdict(not bounding & ~monitor.RIGHTS), _shown(bounding)
    yield "monitor", "no_new_privs", _verdict(all(status["NoNewPrivs"] == "1" for status in threads)), "of each thread"


def _threads(child: Child, threads: list[Status]) -> Iterator[Measured]:
    assert child.machine is not None
    calls = child.machine.struct.calls
    for name, (role, rights) in ROLES.items():
        these = [status for status in threads if status["Name"] == name]
        if not these:  # a machine without such a device
            continue
        held = _masks(these, "CapEff") | _masks(these, "CapPrm") | _masks(these, "CapInh") | _masks(these, "CapAmb")
        is_filtered = all(status["Seccomp"] == "2" for status in these)
        verdict = _verdict(is_filtered and not held & ~rights)
        seen = f"{len(these)}, with {calls[role]} system calls; capabilities: {_shown(held)}"
        yield "monitor's threads", name, verdict, seen


# ---- the program


def _program(spec: Spec, child: Child) -> Iterator[Measured]:
    """What the guest's plan gives to the program."""
    assert child.machine is not None
    plan, inside = child.machine.plan, division.inner(spec)
    flags = compiler.clone_flags(inside, division.inner_host(facts.gather(spec), spec))
    yield "guest's program", "namespaces", "pass", str(getattr(flags, "text", flags))
    ids = [str(step.args[0]) for call in ("setresuid", "setresgid") for step in plan.steps if step.call == call]
    yield "guest's program", "ids", "pass", f"{':'.join(ids)} of the guest"
    effective = _capabilities(plan)
    yield "guest's program", "capabilities", _verdict(not effective & ~DEFAULT), _shown(effective)
    kept: Any = next(step.args[0] for step in plan.steps if step.call == "prctl_capbset_drop_all_but")
    yield "guest's program", "bounding-capabilities", _verdict(not kept & ~DEFAULT), _shown(kept)
    barred = any(step.call == "prctl" and step.args[0] == lib.PR_SET_NO_NEW_PRIVS for step in plan.steps)
    yield "guest's program", "no_new_privs", _verdict(barred), "set" if barred else "not set"
    filters: list[Any] = [step.args[1] for step in plan.steps if step.call == "seccomp"]
    shown = f"{sum(filters)} instructions" if filters else "none"
    yield "guest's program", "seccomp", _verdict(bool(filters)), shown


def _capabilities(plan: Plan) -> int:
    """The effective capabilities before the exec."""
    data: Any = next(step.args[1] for step in reversed(plan.steps) if step.call == "capset")
    low, _, _, high, _, _ = struct.unpack("=6I", data)  # capset(2): struct __user_cap_data_struct of both words
    return int(low | high << 32)


# ---- how it is shown


def _verdict(holds: bool) -> str:
    return "pass" if holds else "fail"


def _masks(threads: list[Status], field: str) -> int:
    mask = 0
    for status in threads:
        mask |= int(status[field], 16)
    return mask


def _shown(mask: int) -> str:
    return " ".join(caps.names(mask & (1 << len(CAPABILITIES)) - 1)) or "none"

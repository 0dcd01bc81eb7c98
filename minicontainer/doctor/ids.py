"""The ids that a user may map into a user namespace, and the tools that map them."""

from __future__ import annotations

import os
import shutil
import stat
from functools import partial

from minicontainer import plan as p
from minicontainer.container.child import Child
from minicontainer.container.ids import mappings
from minicontainer.container.ids import ranges as root_ids
from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.errors import StepError
from minicontainer.linux.processes import check_proc
from minicontainer.linux.userns import is_root
from minicontainer.plan import Slot
from minicontainer.plan.spawn import ParentPlan, ParentRun

PACKAGE = "apt-get install uidmap, or shadow-utils"
FILES = {"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"}


def probes() -> list[Probe]:
    """Probes for the caller; under sudo, for the user who called it."""
    uid = int(os.environ.get("SUDO_UID", "")) if os.environ.get("SUDO_UID", "").isdigit() else os.geteuid()
    return [
        *(Probe(path, partial(ranges, path, uid)) for path in FILES),
        *(Probe(tool, partial(installed, tool)) for tool in ("newuidmap", "newgidmap")),
        Probe("writing maps", written),
    ]


def ranges(path: str, uid: int) -> Verdict:
    """The range of a user in /etc/subuid or /etc/subgid."""
    if uid == 0 and not is_root():
        count = sum(extent[2] for extent in mappings.identity_extents(f"/proc/self/{path[-3:]}_map"))
        return ok(f"not needed: containers share the {count} ids of this user namespace")
    if uid == 0:
        return _pool(path)
    found = mappings.subordinate(path, uid)
    if found is None:
        remedy = f"as root: usermod {FILES[path]} 100000-165535 {_name(uid)}"
        return no(f"no range for user {_name(uid)}: only the user's own id can be mapped", remedy)
    start, count = found
    return ok(f"user {_name(uid)}: {count} ids from {start}")


def _pool(path: str) -> Verdict:
    """The pool from which root's containers get their id ranges."""
    pool = root_ids.pool()
    owner = next((name for name, start, _ in root_ids.subid_entries(path) if start in (pool.uid, pool.gid)), None)
    where = (
        f"of user {owner}" if owner in root_ids.OWNERS else f"outside {path}, as systemd reserves them for containers"
    )
    return ok(f"{pool.size} ranges of {root_ids.WIDTH} {where}, from {pool.uid if path.endswith('uid') else pool.gid}")


def installed(tool: str) -> Verdict:
    """Whether the tool is installed, with its privilege."""
    path = shutil.which(tool)
    if path is None:
        return no("is not installed: ordinary users can map only their own id", PACKAGE)
    if os.stat(path).st_mode & stat.S_ISUID:
        return ok(f"{path}, set-uid")
    if "security.capability" in os.listxattr(path):
        return ok(f"{path}, with file capabilities")
    return no(f"{path} is neither set-uid nor has file capabilities", f"as root: chmod u+s {path}")


def written() -> Verdict:
    """Create a user namespace and map its ids, as ``run`` does."""
    check_proc()
    if mappings.own_maps("private") is not None:
        return note("one id, mapped by the child itself", "ranges need newuidmap, newgidmap, /etc/subuid, /etc/subgid")
    plan = p.Plan(
        [p.close(Slot("go-write")), p.call_parent(Slot("ready")), p.wait_for_parent(Slot("go"))],
        ["go-write", "ready", "go"],
    )
    child = Child("", plan)
    try:
        parent = ParentPlan(mappings.parent_plan(mappings.outer_maps("private"), None), plan)
        child.parent_run = ParentRun(parent, {"pid": -1, "answer": -1, **mappings.prepare(child)})
        result = child.spawn.clone(int(p.const("CLONE_NEWUSER")), {}, parent=child.parent_run)
        if child.parent_run is not None and child.parent_run.failed is not None:
            raise _refusal(child, child.parent_run, child.parent_run.failed)
        if result < 0:
            return no(f"clone3(CLONE_NEWUSER): {os.strerror(-result)}")
    finally:
        child.discard()
    return ok("root's own" if os.geteuid() == 0 else "by newuidmap and newgidmap")


def _refusal(child: Child, parent: ParentRun, failed: int) -> Exception:
    """The error of a tool, with its message, or of a system call."""
    step = parent.plan.steps[failed]
    return (
        mappings.refusal(child, step)
        if step.call == "run"
        else StepError(-parent.records[failed].result, step.describe())
    )


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

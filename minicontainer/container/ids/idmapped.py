"""The parent-side plan for a user namespace with a range of ids (ranges.py): id maps, ID-mapped mounts, device nodes.

ROOTFS and volumes are opened as detached mount trees before the clone. After it, the parent-side plan writes the
child's id maps and makes the trees ID-mapped (mount_setattr(2)): files keep their owners on disk, and files that the
container's root creates belong to the host's root. It also makes device nodes, since mknod(2) is refused in a user
namespace. Then the child continues, and attaches the trees.
"""

from __future__ import annotations

import os

from minicontainer import plan as p
from minicontainer.container.filesystem import dev, kernelfs, mounting
from minicontainer.container.host import NOT_PERMITTED
from minicontainer.container.ids.ranges import allocate, allocate_shared, parse_range
from minicontainer.errors import EXHAUSTED, RangeRefusedError
from minicontainer.native import now
from minicontainer.plan import Builder, Slot
from minicontainer.spec import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack

    from minicontainer.container.child import Child
    from minicontainer.container.host import Host
    from minicontainer.plan import Plan
    from minicontainer.plan.spawn import ParentRun
    from minicontainer.spec import Spec

TREE = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE"


def sources(spec: Spec) -> dict[str, str]:
    """The mount trees: input of the child's plan -> path."""
    binds = {f"mount-{i}": mount.source or "" for i, mount in enumerate(spec.mounts) if mount.type == "bind"}
    return {"root": spec.rootfs, **binds}


def parent_plan(spec: Spec, host: Host) -> Plan:
    """The parent-side plan. Inputs: ``pid answer uid gid count``, and those of the endpoint."""
    b = Builder()
    pid, answer, proc = b.input("pid"), b.input("answer"), Slot("proc")
    uid, gid, count = b.input("uid"), b.input("gid"), b.input("count")
    b.phase = "take sources"
    b.add(*(p.open_tree(path, TREE, name) for name, path in sources(spec).items()))
    mounting.create_dev(b)
    if host.endpoint is not None:
        from minicontainer.container.network import veth

        veth.prepare(b, host.endpoint)
    b.phase = "user namespace"
    b.add(p.await_child(), p.open_proc(pid, proc))
    for name, first in (("uid_map", uid), ("gid_map", gid)):
        fd = Slot(name)
        b.add(p.openat(name, "O_WRONLY|O_CLOEXEC", fd, at=proc), p.id_map(fd, first, count), p.close(fd))
    b.add(p.let_go(answer))
    userns = Slot("userns")
    b.add(p.openat("ns/user", "O_RDONLY|O_CLOEXEC", userns, at=proc))
    b.add(*(p.idmap(Slot(name), userns, recursive=True) for name in sources(spec)), p.close(userns))
    dev.make_nodes(b, spec, host, (uid, gid))
    _raise_limits(b, spec, pid, proc)
    b.add(p.close(proc))
    if host.endpoint is not None:
        veth.connect(b, host.endpoint, pid)
    b.add(p.let_go(answer))
    return b.plan()


def _raise_limits(b: Builder, spec: Spec, pid: Slot, proc: Slot) -> None:
    """Sets limits of the child that may exceed the caller's: root of a user namespace may not raise them (getrlimit(2),
    proc(5))."""
    b.add(*(p.prlimit64_raise(RLIMITS[limit.name], limit.hard, pid) for limit in spec.ulimits))
    kernelfs.set_oom_score(b, spec, "oom_score_adj", proc)
    b.add(p.call("setpriority", 0, pid, 0, tolerate=NOT_PERMITTED))


def prepare(child: Child, spec: Spec) -> dict[str, int]:
    """Allocates ids for the child; returns the inputs of its parent-side plan."""
    start_ns, ids = now(), None if spec.userns in (None, "auto") else parse_range(spec.userns)
    child.ids = lease = allocate() if ids is None else allocate_shared(ids)
    uid, gid, count = lease.ids
    child.notes.append(("user namespace", f"lock ids {uid} to {uid + count - 1}", start_ns, now(), 0))
    return {"uid": uid, "gid": gid, "count": count}


def take_trees(spec: Spec, userns: int, stack: ExitStack) -> dict[str, int]:
    """The mount trees, ID-mapped by an existing user namespace, as plan inputs; ``stack`` closes them."""
    from minicontainer.linux import mounts

    inputs = {}
    for name, path in sources(spec).items():
        inputs[name] = mounts.open_tree(path, TREE)
        stack.callback(os.close, inputs[name])
        mounts.mount_setattr(inputs[name], userns_fd=userns, recursive=True)
    return inputs


def refusal(spec: Spec, parent_run: ParentRun) -> RangeRefusedError | None:
    """The error of a failed parent-side plan where this host cannot map ids, or the file system cannot be ID-mapped;
    None for another failure."""
    failed = parent_run.failed
    step = parent_run.plan.steps[failed] if failed is not None else None
    if failed is not None and -parent_run.records[failed].result in EXHAUSTED:
        return None
    if step is not None and step.call == "mount_setattr_idmap":
        path = sources(spec)[str(step.args[0])]
        reason = f"{path}: its file system, or one mounted in it, cannot be shown with other ids"
    elif step is not None and step.call == "write_id_map":
        reason = "this process may not give ids away (CAP_SETUID, CAP_SETGID)"
    else:
        return None
    return RangeRefusedError("userns", spec.userns or "auto", reason, "--userns host")

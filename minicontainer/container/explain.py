"""Turns a failed step into an error that names the option behind it.

``start`` gives the step and its errno. Where the step implements an option (a volume, a sysctl, a limit, an id), the
error names the option; else it is a StepError that names the step.
"""

from __future__ import annotations

import errno
import os
import struct

from minicontainer.container import compiler
from minicontainer.container.program import execute, failure
from minicontainer.errors import SpecError, StepError, UnsupportedError, hint_for
from minicontainer.linux import caps
from minicontainer.native import ffi, lib
from minicontainer.spec import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.errors import Error
    from minicontainer.plan import Step
    from minicontainer.spec import Mount, Spec

RANGES = "further ids need newuidmap, newgidmap and ranges in /etc/subuid and /etc/subgid"


def program_error(spec: Spec, number: int, file: Any) -> Error:
    """The error of a failed exec of ``spec.args[0]``. ``file``: a struct mc_program, the child's description of the
    file."""
    if file.path == lib.MC_NO_FILTER:
        return _seccomp(spec, None, number, os.strerror(number).lower())
    if file.path == lib.MC_NO_DIRECTORY:
        return _directory(spec, number, os.strerror(number).lower())
    paths = execute.program_paths(spec.args[0], spec.env.get("PATH", compiler.DEFAULT_PATH))
    path = paths[file.path] if 0 <= file.path < len(paths) else None
    head = bytes(ffi.buffer(file.head, min(file.length, lib.MC_HEAD)))
    return failure.explain(spec.args[0], number, path, file.mode, head)


def step_error(spec: Spec, step: Step, number: int) -> Error:
    """The error of a step that failed with errno ``number``."""
    if number in (errno.EMFILE, errno.ENFILE):  # too many open descriptors: no option causes that
        return StepError(number, step.describe())
    reason = os.strerror(number).lower()
    by_phase = {
        "mounts": _mount,
        "/etc": _etc,
        "/dev": _kernel_mount,
        "/proc": _kernel_mount,
        "/sys": _kernel_mount,
        "root": _root,
    }
    by_call = {
        "chdir": _workdir,
        "prlimit64": _ulimit,
        "prlimit64_raise": _ulimit,
        "seccomp": _seccomp,
        "setns": _namespace,
        "setresuid": _identity,
        "setresgid": _identity,
        "setgroups": _identity,
        "fchown": _identity,
        "capset": _capabilities,
        "prctl_capbset_drop_all_but": _capabilities,
    }
    for explain in (_setting, by_call.get(step.call), by_phase.get(step.phase)):
        error = explain(spec, step, number, reason) if explain is not None else None
        if error is not None:
            return error
    hint = "the id maps could not be written" if step.call == "wait_for_parent" else ""
    return StepError(number, step.describe(), hint=hint)


# ---- a function for each kind of option; None where the StepError is clear enough


def _workdir(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    return _directory(spec, number, reason) if step.phase == "execute" else None


def _directory(spec: Spec, number: int, reason: str) -> Error:
    if number == errno.EXDEV:
        return SpecError("cwd", spec.cwd, "leads outside the container")
    return SpecError("cwd", spec.cwd, reason, "in the container")


def _ulimit(spec: Spec, step: Step, number: int, reason: str) -> Error:
    limit = next(u for u in spec.ulimits if RLIMITS[u.name] == step.args[1])
    hint = "to raise the hard limit needs CAP_SYS_RESOURCE" + "; nofile ends at sysctl fs.nr_open" * (
        limit.name == "nofile"
    )
    return UnsupportedError("ulimits", f"{limit.name}={limit.soft}:{limit.hard}", reason, hint)


def _seccomp(spec: Spec, _step: Step | None, number: int, reason: str) -> Error:
    if number == errno.EBUSY:  # of mc_program_inspect (csrc/plan/exec.c), called before the filter is loaded
        return failure.leased(spec.args[0])
    if spec.seccomp is None:
        reason = f"the kernel refuses the filter: {reason}"
        return UnsupportedError("seccomp", None, reason, "--security-opt seccomp=unconfined")
    if number == errno.EINVAL:
        reason = "the kernel refuses this program"
    return SpecError("seccomp", spec.seccomp, reason, "classic BPF, as seccomp_export_bpf(3) writes it")


def _namespace(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    kind = str(step.args[0]).removeprefix("ns-")
    if kind == "process":  # the namespaces of a running container, for exec: no option
        return None
    hints = {
        errno.EPERM: "joining it needs CAP_SYS_ADMIN in its user namespace: join that too, by --userns",
        errno.EINVAL: "it is no namespace of that kind, or the caller's own",
    }
    return UnsupportedError(kind, getattr(spec, kind), reason, hints.get(number, ""))


def _identity(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    if number != errno.EINVAL or step.phase == "user namespace":
        return None
    what, value = ("group_add", ",".join(map(str, spec.group_add))) if step.call == "setgroups" else ("user", spec.user)
    return UnsupportedError(what, value, "has no mapping in this user namespace", RANGES)


def _capabilities(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    """What the step asks for, and the caller does not have: of the spec, or what minicontainer needs itself."""
    if number != errno.EPERM:
        return None
    from minicontainer.container.machine.monitor import PHASE

    missing, hint = _asked(step) & ~caps.capabilities().permitted, "--userns private, or more rights"
    if not missing:
        return None
    if step.phase == PHASE:
        shown = ", ".join(f"CAP_{name}" for name in caps.names(missing))
        return UnsupportedError("isolation", "kvm", f"its monitor needs {shown}, which the caller does not have", hint)
    if step.call == "capset" and not missing & ~spec.capabilities():
        hint = "--cap-drop, or more rights"
    shown = " ".join(caps.names(missing))
    return UnsupportedError("capabilities", shown, "the caller does not have them", hint)


def _asked(step: Step) -> int:
    """The capabilities that a step needs, as a mask."""
    if step.call != "capset":
        return caps.mask(("SETPCAP",))
    data: Any = step.args[1]
    _, low, _, _, high, _ = struct.unpack("=6I", data)  # capset(2): struct __user_cap_data_struct of both words
    return int(low | high << 32)


def _setting(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    """A file of a sysctl or of the OOM score."""
    slot = str(step.into or (step.args[0] if step.call == "write" else ""))
    if slot.startswith("sysctl-"):
        key = slot.removeprefix("sysctl-")
        if number == errno.ENOENT:
            reason = "this kernel has no such sysctl"
        return SpecError("sysctls", f"{key}={spec.sysctls[key]}", reason)
    if slot == "oom_score_adj":
        return UnsupportedError("oom_score_adj", spec.oom_score_adj, reason, "to lower it needs CAP_SYS_RESOURCE")
    return None


def _mount(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    """A mount whose source cannot be opened, or whose target cannot be created."""
    mount = _mount_of(spec, step)
    if mount is None:
        return None
    if number == errno.ENOTDIR or (number == errno.EINVAL and step.call == "move_mount"):
        reason = "a file lies where a directory is needed, or the reverse"
    if step.call == "mount_point" and number in (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM):
        reason = f"is not there, and cannot be made: {'no such thing can be' if number == errno.ENOENT else reason}"
    else:
        reason = f"cannot be mounted on: {reason}"
    hints = [f"for {mount.source}"] if mount.source else []
    if step.call == "mount_point" and number == errno.EPERM:  # mkdirat(2), openat(2) in an immutable directory
        hints.append("chattr -i the directory that it is to be in")
    return SpecError(f"{mount.type} target", mount.target, reason, "; ".join(hints))


def _mount_of(spec: Spec, step: Step) -> Mount | None:
    slot = str(step.args[0] if step.call == "move_mount" else step.into or "")
    number = slot.rpartition("-")[2]
    return spec.mounts[int(number)] if slot.startswith(("mount-", "target-")) and number.isdigit() else None


def _etc(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    """A file of /etc whose mount point is missing and cannot be created."""
    if step.call != "mount_point":
        return None
    reason = f"has no {step.args[0]}, and none can be made: {reason}"
    return SpecError("rootfs", spec.rootfs, reason, "an empty file will do")


def _kernel_mount(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    """The mount points /dev, /proc and /sys, and device nodes."""
    if step.call in ("mknodat", "mkdirat", "symlinkat") and "dev" in step.args:
        name = step.args[2 if step.call == "symlinkat" else 1]
        return SpecError("devices", f"/dev/{name}", reason, "in the container") if spec.devices else None
    if step.call != "move_mount" or number not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
        return None
    reason = "is read-only and has no" if number == errno.ENOENT else "has a file or a link for"
    return SpecError("rootfs", spec.rootfs, f"{reason} {step.args[3]}", "it must be a directory")


def _root(spec: Spec, step: Step, number: int, reason: str) -> Error | None:
    if "overlay" in step.describe() and number in (errno.ENODEV, errno.EPERM, errno.EINVAL):
        if spec.ephemeral:
            return UnsupportedError("ephemeral", spec.rootfs, f"overlay: {reason}", "see minicontainer doctor")
        lacking = f"it has not all that is mounted on, and no layer can be put above it: overlay: {reason}"
        return UnsupportedError("read_only", spec.rootfs, lacking, "make what is missing in it")
    if step.call == "open_tree" and number == errno.EINVAL:
        return UnsupportedError("rootfs", spec.rootfs, reason, hint_for(number, "pivot_root"))
    return None

"""The namespaces that root and ordinary users can create, and the sysctls that forbid them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import partial

from minicontainer import plan as p
from minicontainer.doctor.findings import Probe, Verdict, failure, no, note, ok
from minicontainer.doctor.trial import walk
from minicontainer.errors import StepError

KINDS = {  # name -> (clone flag, its user.max_*_namespaces)
    "mount": ("CLONE_NEWNS", "mnt"),
    "pid": ("CLONE_NEWPID", "pid"),
    "net": ("CLONE_NEWNET", "net"),
    "uts": ("CLONE_NEWUTS", "uts"),
    "ipc": ("CLONE_NEWIPC", "ipc"),
    "cgroup": ("CLONE_NEWCGROUP", "cgroup"),
    "user": ("CLONE_NEWUSER", "user"),
    "time": ("CLONE_NEWTIME", "time"),
}
DEFAULT = (
    "mount",
    "pid",
    "net",
    "uts",
    "ipc",
    "cgroup",
)  # created by a default run; ordinary users need a user namespace too
NOBODY = 65534

# Sysctls that forbid user namespaces to ordinary users: name -> (forbidding value, permitting value).
SWITCHES = {
    "kernel.unprivileged_userns_clone": ("0", "1"),  # Debian, Arch
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),  # Ubuntu
}
LIMIT = "10000"


def probes() -> list[Probe]:
    """Each kind, created by root."""
    return [Probe(name, partial(by_root, name), name in DEFAULT) for name in KINDS]


def user_probes() -> list[Probe]:
    """Each kind, created by an ordinary user in a new user namespace."""
    needed = os.geteuid() != 0
    return [Probe(name, partial(by_user, name), needed and name in (*DEFAULT, "user")) for name in KINDS]


def sysctl_probes() -> list[Probe]:
    """The sysctls that forbid namespaces."""
    switches = [Probe(name, partial(switch, name)) for name in SWITCHES]
    return [*switches, Probe("user.max_*_namespaces", limits)]


def by_root(name: str) -> Verdict:
    """Try to create a namespace as root."""
    flag, _ = KINDS[name]
    try:
        walk([p.unshare(flag)])
    except StepError as error:
        return _explained(name, error, privileged=True)
    return ok()


def by_user(name: str) -> Verdict:
    """Try to create a namespace without privilege; root tries as NOBODY.

    In two steps, because AppArmor may permit the user namespace and then deny capabilities in it."""
    become = [p.setgroups([]), p.setresgid(NOBODY), p.setresuid(NOBODY)] if os.geteuid() == 0 else []
    flag, _ = KINDS[name]
    steps = [*become, p.unshare("CLONE_NEWUSER")]
    if name != "user":
        steps.append(p.unshare(flag))
    try:
        walk(steps)
    except StepError as error:
        return _explained(name, error, privileged=False)
    return ok()


def switch(name: str) -> Verdict:
    """Whether a distribution's sysctl forbids user namespaces."""
    value = sysctl(name)
    forbids, permits = SWITCHES[name]
    if value is None:
        return ok("not on this kernel")
    if value == forbids:
        return no(f"={value}: ordinary users cannot create user namespaces", f"as root: sysctl {name}={permits}")
    return ok(f"={value}")


def limits() -> Verdict:
    """The limits of namespaces per user."""
    values = {f"user.max_{kind}_namespaces": sysctl(f"user.max_{kind}_namespaces") for _, kind in KINDS.values()}
    zero = [name for name, value in values.items() if value == "0"]
    if zero:
        return no(", ".join(f"{name}=0" for name in zero), f"as root: sysctl {zero[0]}={LIMIT}")
    known = [int(value) for value in values.values() if value is not None]
    if not known:
        return note("unknown: no /proc/sys/user")
    return ok(f"{min(known)} or more")


def sysctl(name: str) -> str | None:
    """The value of a sysctl; None if it does not exist."""
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def forbidding(name: str, *, privileged: bool) -> Iterator[tuple[str, str, str]]:
    """The sysctls that forbid this kind: name, value, and a permitting value."""
    for kind in dict.fromkeys((KINDS[name][1], *([] if privileged else ["user"]))):
        sysctl_name = f"user.max_{kind}_namespaces"
        if sysctl(sysctl_name) == "0":
            yield sysctl_name, "0", LIMIT
    if not privileged:
        for sysctl_name, (forbids, permits) in SWITCHES.items():
            if sysctl(sysctl_name) == forbids:
                yield sysctl_name, forbids, permits


def _explained(name: str, error: StepError, *, privileged: bool) -> Verdict:
    """The verdict for an error; EPERM and ENOSPC are misleading if a sysctl is the cause."""
    if error.errno in (errno.EPERM, errno.ENOSPC, errno.EUSERS):
        for sysctl_name, value, permits in forbidding(name, privileged=privileged):
            return no(f"disabled by sysctl {sysctl_name}={value}", f"as root: sysctl {sysctl_name}={permits}")
    if error.errno == errno.EINVAL and error.call.startswith(("clone3", "unshare")):
        return no(f"{error.call}: this kernel has no {name} namespaces", "use a kernel built with them")
    return failure(error)

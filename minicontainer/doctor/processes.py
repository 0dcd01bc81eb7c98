"""What a container's process is made with: a whole default container, seccomp, time namespaces, keyrings, capabilities."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from minicontainer import plan as p
from minicontainer.container.host import enters_time_namespace
from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.doctor.staging import temporary
from minicontainer.doctor.trial import PAUSE, walk
from minicontainer.native import lib
from minicontainer.spec import CAPABILITIES, DEFAULT_CAPABILITIES, Mount

ALL = (1 << len(CAPABILITIES)) - 1
FEW = 6  # how many names fit a line


def probes() -> list[Probe]:
    """A whole run first: whatever else is amiss, that tells."""
    return [
        Probe("default run", default_run, needed=True),
        Probe("seccomp filter", seccomp),
        Probe("session keyring", keyring),
        Probe("time namespace at exec", time_namespace),
    ]


def capability_probes() -> list[Probe]:
    """The caller's own."""
    return [
        Probe("effective", effective),
        Probe("bounding set", bounding),
        Probe("no_new_privs", no_new_privs),
    ]


def default_run() -> Verdict:
    """Runs our smallest program in a container with all defaults, and nothing else in its root file system."""
    from minicontainer.container.process import DEVNULL, run

    program = (Mount("/pause", source=PAUSE, readonly=True),)
    with temporary() as rootfs:
        result = run(["/pause"], rootfs=rootfs, mounts=program, stdin=DEVNULL, die_with_parent=True)
    if result.returncode != 0:
        return no(f"the program ended with {result.returncode}")
    return ok("a container was made, ran a program, and is gone")


def seccomp() -> Verdict:
    """A filter that allows everything."""
    allow = struct.pack("=HBBI", 0x06, 0, 0, lib.SECCOMP_RET_ALLOW)  # BPF_RET|BPF_K
    walk([p.prctl("PR_SET_NO_NEW_PRIVS", 1), p.seccomp(allow)])
    return ok()


def keyring() -> Verdict:
    """A session keyring of its own."""
    walk([p.call("keyctl", p.const("KEYCTL_JOIN_SESSION_KEYRING"), None)])
    return ok()


def time_namespace() -> Verdict:
    """Whether a new time namespace is entered at exec, as a container needs it."""
    if not enters_time_namespace():
        return no("this kernel does not enter it at exec: no --timens private", "Linux 6.3 or later")
    return ok()


def effective() -> Verdict:
    """What the caller may do now."""
    return described(_mask("CapEff"))


def bounding() -> Verdict:
    """What the caller can pass on at most."""
    mask = _mask("CapBnd")
    lacking = [name for name in CAPABILITIES if name in DEFAULT_CAPABILITIES and not mask >> _bit(name) & 1]
    if lacking and os.geteuid() == 0:
        return note(f"lacks {', '.join(lacking)} of a container's defaults", "start from a less restricted process")
    return described(mask)


def no_new_privs() -> Verdict:
    """Set, it keeps newuidmap(1) from its privilege."""
    if _status("NoNewPrivs") == "1":
        return note("set: newuidmap and newgidmap cannot work", "start from a process without it")
    return ok("not set")


def described(mask: int) -> Verdict:
    """A mask of capabilities in few words."""
    names = [name for name in CAPABILITIES if mask >> _bit(name) & 1]
    if mask & ALL == ALL:
        return ok(f"all {len(CAPABILITIES)}")
    if len(names) > len(CAPABILITIES) - FEW:
        return ok(f"all but {_listed([name for name in CAPABILITIES if name not in names])}")
    return ok(_listed(names) if names else "none")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.lower().removeprefix("cap_") for name in names)


def _bit(name: str) -> int:
    return CAPABILITIES.index(name)


def _mask(field: str) -> int:
    return int(_status(field), 16)


def _status(field: str) -> str:
    """A line of /proc/self/status (proc(5))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
    raise OSError(f"/proc/self/status has no {field}")

"""What a container's process needs: a default run, seccomp, session keyring, time namespace, capabilities."""

from __future__ import annotations

import os
import shutil
import struct
import warnings
from collections.abc import Iterable

from minicontainer import plan as p
from minicontainer.container.host import enters_time_namespace
from minicontainer.doctor.findings import Probe, Verdict, no, note, ok
from minicontainer.doctor.leftovers import temporary
from minicontainer.doctor.trial import PAUSE, by_sysctl, walk
from minicontainer.errors import IsolationWarning
from minicontainer.linux import caps, libseccomp
from minicontainer.native import lib
from minicontainer.spec import CAPABILITIES, DEFAULT_CAPABILITIES

FEW = 6  # names that fit on a line


def probes() -> list[Probe]:
    """The probes; first a whole default run."""
    return [
        Probe("default run", default_run, needed=True),
        Probe("seccomp filter", seccomp),
        Probe("libseccomp", seccomp_library),
        Probe("session keyring", keyring),
        Probe("time namespace at exec", time_namespace),
    ]


def capability_probes() -> list[Probe]:
    """Probes of the caller's capabilities."""
    return [
        Probe("effective", effective),
        Probe("bounding set", bounding),
        Probe("no_new_privs", no_new_privs),
    ]


def default_run() -> Verdict:
    """Run the smallest static program in a container with default options."""
    from minicontainer.container.process import DEVNULL
    from minicontainer.container.running import run

    with temporary() as rootfs, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", IsolationWarning)
        shutil.copy(PAUSE, rootfs)
        result = run(["/pause"], rootfs=rootfs, stdin=DEVNULL, die_with_parent=True)
    if result.returncode != 0:
        return no(f"the program ended with {result.returncode}")
    if caught:
        return note(f"a container ran, with less isolation: {caught[0].message}")
    return ok("a container ran a program and was removed")


def seccomp() -> Verdict:
    """Load a seccomp filter that allows everything."""
    allow = struct.pack("=HBBI", 0x06, 0, 0, lib.SECCOMP_RET_ALLOW)  # BPF_RET|BPF_K
    walk([p.prctl("PR_SET_NO_NEW_PRIVS", 1), p.seccomp(allow)])
    return ok()


def seccomp_library() -> Verdict:
    """Whether libseccomp, which compiles profiles, is installed."""
    return ok(libseccomp.version())


def keyring() -> Verdict:
    """Join a new session keyring."""
    walk([p.call("keyctl", p.const("KEYCTL_JOIN_SESSION_KEYRING"), None)])
    return ok()


def time_namespace() -> Verdict:
    """Whether a process enters its new time namespace at exec."""
    with by_sysctl("0" if os.geteuid() == 0 else "CLONE_NEWUSER"):
        entered = enters_time_namespace()
    if not entered:
        return no("this kernel does not enter a time namespace at exec: no --timens private", "Linux 6.3 or later")
    return ok()


def effective() -> Verdict:
    """The caller's effective capabilities."""
    return ok(in_words(caps.capabilities().effective))


def bounding() -> Verdict:
    """The caller's bounding set."""
    mask = caps.capabilities().bounding
    lacking = DEFAULT_CAPABILITIES.difference(caps.names(mask))
    if lacking and os.geteuid() == 0:
        return note(
            f"lacks default capabilities of containers: {_join(lacking)}", "start from a less restricted process"
        )
    return ok(in_words(mask))


def no_new_privs() -> Verdict:
    """Whether no_new_privs is set: it prevents newuidmap(1) from gaining privilege."""
    import prctl

    if prctl.get_no_new_privs():
        return note("set: newuidmap and newgidmap cannot work", "start from a process without it")
    return ok("not set")


def in_words(mask: int) -> str:
    """A capability mask as text."""
    has = caps.names(mask)
    lacks = set(CAPABILITIES).difference(has)
    if not lacks:
        return f"all {len(has)}"
    if len(lacks) <= FEW:
        return f"all but {_join(lacks)}"
    return _join(has) if has else "none"


def _join(names: Iterable[str]) -> str:
    return ", ".join(name.lower() for name in sorted(names))

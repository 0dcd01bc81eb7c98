"""``compare security``: one probe (csrc/probe) in a container of each runtime, started by a careless caller.

A careless caller passes on: an open directory, an environment variable, a controlling terminal, ignored and blocked
signals, an umask of 0, unusual limits, another personality, niceness and OOM score. ROOTFS is hostile: it contains a
device node and a set-uid program.
"""

from __future__ import annotations

import os
import pty
import shutil
import stat
import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from minicontainer.compare import machine, peers
from minicontainer.compare.contenders import Command, own_command
from minicontainer.compare.peers import PEERS, peer
from minicontainer.container.security import PROBE, Check, outside, parse
from minicontainer.errors import Error

OURS = "minicontainer"
NAMES = (OURS, *PEERS)
PROGRAM, SET_UID, NODE = "/bin/probe", "/bin/set-uid", "/node"
NODES = ("/dev/loop-control", "/dev/fuse", "/dev/kvm", "/dev/kmsg")  # devices that can be opened without an effect
CARELESS = (
    "setsid --ctty --wait prlimit --nofile=777: --core=12345: choom -n 500 -- nice -n 5 setarch -R"
    " env --block-signal=USR2 --ignore-signal=USR1"
).split()
INHERITED = ("nofile=777", "core=12345", "oom_score_adj=500")  # arguments of the probe: inherited properties


def measure(*, only: Collection[str] = NAMES) -> dict[str, Any]:
    """The comparison as data: ``machine``, ``runtimes`` (the checks of each), ``worse`` (controls that only a peer
    has), ``unable`` (what could not be measured, and why)."""
    runtimes: dict[str, list[Check]] = {}
    unable: dict[str, str] = {}
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicontainer-compare-"))
        rootfs = os.path.join(scratch, "rootfs")
        words = [PROGRAM, *_populate(rootfs), *INHERITED, *stack.enter_context(outside())]
        for name in NAMES:
            if name not in only:
                continue
            found = _entrant(name, rootfs, words, scratch, unable)
            if found is not None:
                with closing(found):
                    _measure(found, runtimes, unable)
    return {"machine": machine.describe(), "runtimes": runtimes, "worse": worse(runtimes), "unable": unable}


def worse(runtimes: dict[str, list[Check]]) -> list[dict[str, Any]]:
    """The checks that fail under minicontainer and pass under another runtime, with the names of those runtimes."""
    held: dict[tuple[str, str], list[str]] = {}
    for name, checks in runtimes.items():
        for check in checks:
            if name != OURS and check.verdict == "pass":
                held.setdefault((check.area, check.name), []).append(name)
    return [
        {"area": check.area, "name": check.name, "seen": check.seen, "peers": held[check.area, check.name]}
        for check in runtimes.get(OURS, ())
        if check.verdict == "fail" and (check.area, check.name) in held
    ]


def _populate(rootfs: str) -> list[str]:
    """Create a root file system with the probe, a set-uid program and a device node; their arguments."""
    for name in ("bin", "dev", "proc", "run", "sys", "tmp"):
        os.makedirs(os.path.join(rootfs, name))
    for path in (PROGRAM, SET_UID):
        shutil.copy(PROBE, rootfs + path)
    os.chmod(rootfs + SET_UID, 0o4755)
    arguments = [f"setuid={SET_UID}"]
    node = next((node for node in NODES if os.path.exists(node)), None)
    if node is not None and os.geteuid() == 0:
        os.mknod(rootfs + NODE, stat.S_IFCHR | 0o666, os.stat(node).st_rdev)
        arguments.append(f"node={NODE}")
    return arguments


def _entrant(name: str, rootfs: str, words: Sequence[str], scratch: str, unable: dict[str, str]) -> Command | None:
    """The runtime ``name`` in its strictest working variant; reasons for failures go to ``unable``."""
    if name == OURS:
        return _ours(rootfs, words)
    ways: list[tuple[str, peers.Make | None]] = [(name, None)]
    if name in STRICT:
        ways.insert(0, (f"{name}, with all that it has", STRICT[name]))
    for what, make in ways:
        found = peer(name, rootfs, words, tempfile.mkdtemp(dir=scratch), make)
        if not isinstance(found, str):
            return found
        unable[what] = found
    return None


def _measure(command: Command, runtimes: dict[str, list[Check]], unable: dict[str, str]) -> None:
    """Run the probe under one runtime; store its checks, or the reason of the failure."""
    terminal, caller = pty.openpty()
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        output = command.output(CARELESS, stdin=caller, pass_fds=[directory], umask=0)
        runtimes[command.name] = parse(output.decode(errors="replace"))
    except (Error, OSError) as e:
        unable[command.name] = f"cannot run here: {e}"
    finally:
        for fd in (terminal, caller, directory):
            os.close(fd)


def _ours(rootfs: str, words: Sequence[str]) -> Command:
    """``minicontainer run`` without options."""
    argv = own_command("run", rootfs, *words)
    return Command(OURS, lambda _: argv)


# ---- runtimes with stricter options than in measurements of time, as their documentation recommends


def _bwrap(rootfs: str, words: Sequence[str], _scratch: str) -> Command:
    argv = ["bwrap", "--unshare-all", "--new-session", "--die-with-parent", "--bind", rootfs, "/"]
    argv += ["--proc", "/proc", "--dev", "/dev", *words]
    return Command("bwrap", lambda _: argv)


def _unshare(rootfs: str, words: Sequence[str], _scratch: str) -> Command:
    """unshare(1) with a /proc, which the probe reads."""
    argv = ["unshare", "--mount", f"--mount-proc={rootfs}/proc", "--pid", "--net", "--ipc", "--uts", "--cgroup"]
    argv += ["--fork", "chroot", rootfs, *words]
    return Command("unshare", lambda _: argv)


STRICT: dict[str, peers.Make] = {
    "bwrap": _bwrap,
    "unshare": _unshare,
    "crun": partial(peers.crun, resources=True),
    "runc": partial(peers.runc, resources=True),
}

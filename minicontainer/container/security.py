"""Runs the security probe (csrc/probe) in a container: the probe tests from inside which controls hold. Of a virtual
machine, the monitor is measured instead.

Arguments NAME=VALUE give the probe facts of the outside: the host's namespaces, a variable of the caller's environment,
a socket that the container must not reach. ``outside`` creates the variable and the socket, and removes them again.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import NamedTuple

from minicontainer.container.process import PIPE, Popen
from minicontainer.errors import Error
from minicontainer.linux.keyring import keyring_id
from minicontainer.linux.sharedmemory import shm_remove, shmget
from minicontainer.native import LIBEXEC, lib
from minicontainer.spec import Spec

PROBE = f"{LIBEXEC}/probe"
VERDICTS = ("pass", "fail", "skip")
END = "end"  # the probe's last line
MARK = "MINICONTAINER_CALLER"  # a variable of the caller's environment
KINDS = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")
KEYRINGS = (("session-keyring", "KEY_SPEC_SESSION_KEYRING"), ("user-keyring", "KEY_SPEC_USER_KEYRING"))


class Check(NamedTuple):
    """One control: ``verdict`` is pass, fail or skip; ``seen`` is the probe's observation."""

    area: str
    name: str
    verdict: str
    seen: str


def parse(text: str) -> list[Check]:
    """Parses the probe's output. Error where it is incomplete, so that a missing check never counts as passed."""
    lines = text.split("\n")
    if lines[-2:] != [END, ""]:
        raise Error(f"the security probe did not come to its end (it wrote {len(lines) - 1} lines)")
    checks, names = [], set()
    for line in lines[:-2]:
        fields = line.split("\t")
        if len(fields) != len(Check._fields) or not all(fields[:2]) or fields[2] not in VERDICTS:
            raise Error(f"the security probe wrote {line[:100]!r}")
        checks.append(Check(*fields))
        names.add((fields[0], fields[1]))
    if not checks or len(names) != len(checks):
        raise Error("the security probe wrote no check, or one twice")
    return checks


def by_area(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """The checks of each area, both in the probe's order."""
    areas: dict[str, list[Check]] = {}
    for check in checks:
        areas.setdefault(check.area, []).append(check)
    return areas


def examine(spec: Spec) -> list[Check]:
    """Runs the container of ``spec`` with the probe as its program; returns the checks. With ``isolation="kvm"`` they
    are those of its monitor, from outside, and of the guest's plan (machine/confinement.py)."""
    if spec.isolation == "kvm":
        from minicontainer.container.machine import confinement

        return [Check(*measured) for measured in confinement.examine(spec)]
    with outside() as facts:
        measured = replace(spec, executable=PROBE, args=("minicontainer-probe", *facts))
        with Popen(measured, stdout=None if spec.tty else PIPE) as process:
            output = process.stdout.read() if process.stdout is not None else _read_all(process.terminal)
            status = process.wait()
    if status:
        raise Error(f"the security probe ended with status {status}")
    return parse(output.replace(b"\r\n", b"\n").decode(errors="replace"))


def _read_all(terminal: int) -> bytes:
    """The output of a pty, until no process has it open for writing (EIO)."""
    output = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            return output
        if not part:
            return output
        output += part


# ---- facts of the outside


@contextmanager
def outside() -> Iterator[list[str]]:
    """The probe's arguments, which hold within the ``with`` block."""
    with ExitStack() as stack:
        yield [
            *(f"ns.{kind}={os.readlink(f'/proc/self/ns/{kind}')}" for kind in KINDS),
            f"session={os.getsid(0)}",
            f"hostname={os.uname().nodename}",
            f"mark={_mark(stack)}",
            f"outside={stack.enter_context(TemporaryDirectory(prefix='minicontainer-outside-'))}",
            f"abstract={_abstract_socket(stack)}",
            f"shm={_segment(stack)}",
            *_terminals(),
            *_keyrings(),
        ]


def _mark(stack: ExitStack) -> str:
    os.environ[MARK] = "1"
    stack.callback(os.environ.pop, MARK, None)
    return MARK


def _abstract_socket(stack: ExitStack) -> str:
    """An abstract socket (unix(7)), whose name belongs to a network namespace and to no file system."""
    name = f"minicontainer-outside-{secrets.token_hex(8)}"
    server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    server.bind(f"\0{name}")
    server.listen()
    return name


def _segment(stack: ExitStack) -> int:
    key = 1 + secrets.randbelow(2**31 - 1)
    stack.callback(shm_remove, shmget(key, 1, lib.IPC_CREAT | lib.IPC_EXCL | 0o600))
    return key


def _terminals() -> Iterator[str]:
    if os.path.exists("/dev/pts"):
        yield f"devpts={os.stat('/dev/pts').st_dev}"


def _keyrings() -> Iterator[str]:
    """The caller's keyrings, where the kernel has keyrings."""
    for name, special in KEYRINGS:
        try:
            yield f"{name}={keyring_id(special)}"
        except OSError:
            continue

"""The static program csrc/helpers/init.c, run from a sealed memfd, and its report: process 1 of ``--init``; and what is
executed before a program that could get at the caller's executable (``Host.exe_reachable``)."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from minicontainer.container.program.execute import LAST_FD
from minicontainer.errors import StepError
from minicontainer.linux.files import sealed_memfd
from minicontainer.native import LIBEXEC, ffi
from minicontainer.plan import Plan
from minicontainer.spec import Spec

INIT = f"{LIBEXEC}/init"


def descriptor(program: str = INIT) -> int:
    """A program as a new sealed memfd; its number is above those that the plan uses."""
    return sealed(f"minicontainer-{os.path.basename(program)}", Path(program).read_bytes())


def sealed(name: str, data: bytes) -> int:
    """A new sealed memfd; its number is above those that the plan uses."""
    fd = sealed_memfd(name, data)
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LAST_FD + 1)
    finally:
        os.close(fd)


def inputs(spec: Spec, plan: Plan, filter_: bytes, stack: ExitStack) -> dict[str, int]:
    """What a plan asks for of these: programs, and the filter that init loads; ``stack`` closes those made for it. The
    filter is behind init, which is put in its place first: a monitor has them from MC_SHARED_FD on."""
    found = {"init": kept()} if "init" in plan.inputs else {}
    if spec.executable:
        found["executable"] = descriptor(spec.executable)
    if "filter" in plan.inputs:
        found["filter"] = sealed("filter", filter_)
    for name in {"executable", "filter"} & set(found):
        stack.callback(os.close, found[name])
    return found


_kept: dict[str, tuple[int, tuple[int, int]]] = {}  # program -> descriptor and inode (a dict's methods are atomic)


def kept(program: str = INIT) -> int:
    """``descriptor(program)``, made once: it is looked whether it is still ours (daemons close all)."""
    fd, inode = _kept.get(program, (-1, (0, 0)))
    with suppress(OSError):
        if _inode(fd) == inode:
            return fd
    _kept.pop(program, None)
    made = descriptor(program)
    fd, _ = _kept.setdefault(program, (made, _inode(made)))
    if fd != made:  # another thread was quicker
        os.close(made)
    return fd


def _inode(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def report(fd: int) -> tuple[int, Any]:
    """(errno, struct mc_program) of a program that did not start; the errno is 0 where it runs.

    The pipe shares init's memory: what it holds counts when init is gone from it (csrc/helpers/init.c)."""
    size = 4 + ffi.sizeof("struct mc_program")
    data = b""
    end = select.poll()
    end.register(fd, 0)  # POLLHUP alone
    end.poll()
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            break
        data += part
    if not data:
        return 0, None
    if len(data) < size:
        raise StepError(errno.EPROTO, "read(init's report)")
    program = ffi.new("struct mc_program *")
    ffi.memmove(program, data[4:], size - 4)
    return struct.unpack_from("=i", data)[0], program

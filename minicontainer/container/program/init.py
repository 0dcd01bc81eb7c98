"""The static program csrc/helpers/init.c, executed from a sealed memfd, and its report.

With ``--init`` it is process 1. It is also executed before the program where the container could reach the caller's
executable (``Host.exe_reachable``)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from minicontainer.container.program.execute import LAST_FD
from minicontainer.errors import StepError
from minicontainer.linux.files import sealed_memfd
from minicontainer.native import LIBEXEC, ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack, suppress
    from typing import Any

    from minicontainer.plan import Plan
    from minicontainer.spec import Spec
else:
    from minicontainer.light import suppress

INIT = f"{LIBEXEC}/init"


def descriptor(program: str = INIT) -> int:
    """A copy of a program as a new sealed memfd, numbered above the descriptors that the plan assigns."""
    return sealed(f"minicontainer-{os.path.basename(program)}", _content(program))


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as f:
        return f.readall()


def sealed(name: str, data: bytes) -> int:
    """A new sealed memfd, numbered above the descriptors that the plan assigns."""
    fd = sealed_memfd(name, data)
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LAST_FD + 1)
    finally:
        os.close(fd)


def inputs(spec: Spec, plan: Plan, filter_: bytes, stack: ExitStack) -> dict[str, int]:
    """The programs that are inputs of a plan, and the filter that init loads. ``stack`` closes the descriptors that are
    not cached. The filter's number is above init's, which the plan assigns first, also in a monitor, whose descriptors
    start at MC_SHARED_FD."""
    fds = {"init": cached()} if "init" in plan.inputs else {}
    if spec.executable:
        fds["executable"] = descriptor(spec.executable)
    if "filter" in plan.inputs:
        fds["filter"] = sealed("filter", filter_)
    for name in {"executable", "filter"} & set(fds):
        stack.callback(os.close, fds[name])
    return fds


_cache: dict[str, tuple[int, tuple[int, int]]] = {}  # program -> descriptor and inode (a dict's methods are atomic)


def cached(program: str = INIT) -> int:
    """``descriptor(program)``, created once for the process. A cached descriptor that was closed (daemons close all) or
    reused is created again."""
    fd, inode = _cache.get(program, (-1, (0, 0)))
    with suppress(OSError):
        if _inode(fd) == inode:
            return fd
    _cache.pop(program, None)
    new = descriptor(program)
    fd, _ = _cache.setdefault(program, (new, _inode(new)))
    if fd != new:  # another thread has cached one meanwhile
        os.close(new)
    return fd


def _inode(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def report(fd: int) -> tuple[int, Any]:
    """Reads init's report: (errno, struct mc_program) of a program that could not be executed; errno 0 where it runs.

    The pipe shares a page of init's memory (vmsplice(2)): its content is final when init has exec'd or ended, which is
    POLLHUP (csrc/helpers/init.c)."""
    import select

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

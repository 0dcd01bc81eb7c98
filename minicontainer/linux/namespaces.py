"""Namespaces (namespaces(7)) and what belongs to them: clone3, unshare, setns, pivot_root, host names."""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock, start_new_thread

from minicontainer.errors import StepError
from minicontainer.linux.arguments import flags as number
from minicontainer.linux.arguments import path
from minicontainer.native import lib, syscall
from minicontainer.plan import Plan
from minicontainer.plan.spawn import Spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minicontainer.linux.arguments import StrPath
    from minicontainer.plan import Step

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def clone3(
    plan: Plan | Iterable[Step],
    flags: int | str = 0,
    inputs: Mapping[str, int] | None = None,
    cgroup: int = -1,
) -> tuple[int, int]:
    """clone3(2) of a child that walks ``plan``: (pid, pidfd), once it has exec'd or ended. The caller reaps and closes.

    ``flags`` of CLONE_NEW*; ``inputs``: a descriptor above 2 for each input of the plan; ``cgroup``: the descriptor for
    CLONE_INTO_CGROUP. The program inherits the caller's signal mask and ignored signals (Python's SIGPIPE), unless
    the plan has the step ``reset_signals()``. The OSError names clone3 or the step that failed."""
    child = Spawn(plan if isinstance(plan, Plan) else Plan(plan))
    child.start(flags, inputs, cgroup)
    return child.pid, child.pidfd


def unshare(flags: int | str) -> None:
    """unshare(2) of the calling thread."""
    syscall("unshare", lib.SYS_unshare, number(flags))


def setns(target: int | StrPath, flags: int | str = 0) -> None:
    """setns(2): joins the namespace of a /proc/PID/ns file (path or descriptor), or those of a pidfd by ``flags``."""
    kind = number(flags)
    if isinstance(target, int):
        syscall("setns", lib.SYS_setns, target, kind)
        return
    fd = os.open(path(target), os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall("setns", lib.SYS_setns, fd, kind, what=(os.fspath(target), kind))
    finally:
        os.close(fd)


def namespaces(pid: int | str = "self") -> dict[str, str]:
    """Kind -> ``uts:[4026531838]`` of a process, for each kind of this kernel: the text changes with the namespace.

    OSError if there is no such process, or the caller may not inspect it (ptrace(2), access mode checking)."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _kinds(pid)}


def open_namespaces(pid: int | str = "self", kinds: Iterable[str] | None = None) -> dict[str, int]:
    """Kind -> descriptor for ``setns``, which holds the namespace; close-on-exec. The caller closes them."""
    opened: dict[str, int] = {}
    try:
        for kind in _kinds(pid) if kinds is None else kinds:
            opened[kind] = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        for fd in opened.values():
            os.close(fd)
        raise
    return opened


def _kinds(pid: int | str) -> list[str]:
    available = set(os.listdir(f"/proc/{pid}/ns"))
    return [kind for kind in KINDS if kind in available]


def pivot_root(new_root: StrPath, put_old: StrPath) -> None:
    """pivot_root(2)."""
    what = (os.fspath(new_root), os.fspath(put_old))
    syscall("pivot_root", lib.SYS_pivot_root, path(new_root), path(put_old), what=what)


def is_chrooted() -> bool:
    """Whether this process is in a chroot(2): its root is not the root of its mount namespace. Then the kernel refuses
    user namespaces (clone(2), EPERM), and after pivot_root(2) the tree above the old root would remain reachable.

    A thread finds the true root by setns(2) to its own mount namespace. False if that is not permitted: a process
    without CAP_SYS_CHROOT cannot leave its root."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    roots: list[int] = [root]
    failed: list[OSError] = []
    try:
        ended = allocate_lock()
        ended.acquire()
        try:
            start_new_thread(_open_true_root, (roots, failed, ended))
        except RuntimeError:  # Python does not report the errno: EAGAIN of clone(2), or no memory for the stack
            raise StepError(errno.EAGAIN, "pthread_create()", hint="ulimit -u, ulimit -v, pids.max") from None
        ended.acquire()
        if failed:
            raise failed[0]
        return len({_identity(fd) for fd in roots}) > 1
    finally:
        for fd in roots:
            os.close(fd)


def _open_true_root(roots: list[int], failed: list[OSError], ended: Any) -> None:
    try:
        unshare("CLONE_FS")
        setns("/proc/thread-self/ns/mnt", "CLONE_NEWNS")
        roots.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except PermissionError:
        pass
    except OSError as e:
        failed.append(e)
    finally:
        ended.release()


def _identity(fd: int) -> tuple[int, int, bytes]:
    """Device, inode and mount id: the same directory may be in several mounts (proc(5), fdinfo)."""
    info = os.fstat(fd)
    with open(f"/proc/self/fdinfo/{fd}", "rb") as f:
        mount = next(line for line in f if line.startswith(b"mnt_id:"))
    return info.st_dev, info.st_ino, mount


def sethostname(name: str) -> None:
    """sethostname(2) of this uts namespace."""
    data = os.fsencode(name)
    syscall("sethostname", lib.SYS_sethostname, data, len(data), what=(name,))


def gethostname() -> str:
    """The node name of this uts namespace (uname(2))."""
    return os.uname().nodename


def setdomainname(name: str) -> None:
    """setdomainname(2) of this uts namespace: the NIS domain name."""
    data = os.fsencode(name)
    syscall("setdomainname", lib.SYS_setdomainname, data, len(data), what=(name,))


def getdomainname() -> str:
    """The NIS domain name of this uts namespace; ``(none)`` if unset."""
    with open("/proc/sys/kernel/domainname", encoding="utf-8", errors="surrogateescape") as f:
        return f.read().rstrip("\n")

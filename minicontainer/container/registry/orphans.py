"""Orphans: containers whose monitor or owner process was killed. Ends their processes.

Theory of operation. The death of the monitor kills process 1 (PR_SET_PDEATHSIG), but a process that has changed its ids
does not get that signal any more (prctl(2)). So each command, and each start that asks for the name of such a
container, ends it: process 1 by its pidfd, the others by the cgroup, then the lease of its address.
"""

from __future__ import annotations

import _signal  # signal imports enum
import fcntl
import os

from minicontainer import runtime
from minicontainer.container.registry import names, ownership
from minicontainer.errors import EXHAUSTED, Error, SpecError, as_step_error, sentence
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.process import Process, boot_id, pidfd_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import suppress
    from typing import Any
else:
    from minicontainer.light import suppress

RUNNING = ("running", "restarting", "stopping")  # the statuses in the file `state` before the end
PATIENCE = 20.0  # seconds that processes may take to end after a kill
SOON = 1.0  # the same, for commands that only read the container's state
NO_CGROUP = "none"  # the target of the link `cgroup` of a container without a cgroup


def reserve_name(name: str, identifier: str, *, persistent: bool = True) -> int:
    """``names.reserve``. Where an orphan has the name, ends the orphan before it raises the SpecError."""
    try:
        return names.reserve(name, identifier, persistent=persistent)
    except SpecError:
        if owner := names.owner(name):
            end_if_dead(owner)
        raise


def end_if_dead(identifier: str) -> None:
    """Ends the container if it is an orphan and no other process changes it now. If it does not end within SOON,
    a later command ends it."""
    try:
        fd = os.open(names.detached(identifier), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_dead(identifier):
            end(identifier, SOON)
    except (BlockingIOError, Error):
        pass
    finally:
        os.close(fd)


def is_dead(identifier: str) -> bool:
    """Whether its last state is that of a running container, and neither a monitor nor an owner process is alive."""
    is_owned = ownership.is_owned(identifier[:12])  # read before the state: a monitor writes the final state, then ends
    return not is_owned and _read(identifier, "state").get("status") in RUNNING


def is_copied(identifier: str) -> bool:
    """Whether its state directory is a copy, which has none of the locks. The processes that its files name belong to
    another state directory, and may run."""
    mark = _read(identifier, "config.json").get("mark")
    return isinstance(mark, str) and mark != runtime.mark() and not ownership.is_owned(identifier[:12])


def monitor(identifier: str) -> int:
    """A pidfd of its monitor or owner process; -1 where there is none."""
    return _pidfd(identifier, "monitor")


def end(identifier: str, timeout: float = PATIENCE) -> None:
    """Ends its processes and its lease, and removes its cgroup. Error where a process is still there after ``timeout``
    seconds. The caller holds the lock of its directory."""
    if is_copied(identifier):
        unlink(identifier)
        return
    _check_dead_monitor(identifier)
    pidfd = _pidfd(identifier, "process")
    if pidfd >= 0:
        try:
            _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
            if not pidfd_wait(pidfd, timeout):
                raise Error(f"container {identifier[:12]}: its first process does not end, though killed")
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
    path = link(identifier, "cgroup")
    if path and os.path.isdir(path):
        Cgroup.open(path).remove(kill=True, timeout=timeout)
    if lease := link(identifier, "lease"):
        from minicontainer.network import release

        release.release_dead(lease)
        os.unlink(f"{names.detached(identifier)}/lease")


def _check_dead_monitor(identifier: str) -> None:
    """Error where the monitor lives and does not hold its lock here: then the state directory is a copy."""
    pidfd = monitor(identifier)
    if pidfd < 0:
        return
    try:
        if not pidfd_wait(pidfd, SOON):  # an ending process releases the lock first
            where = runtime.directory()
            raise Error(sentence("container", identifier[:12], f"runs, and {where} is a copy of its state directory"))
    finally:
        os.close(pidfd)


# ---- the container's files


def link(identifier: str, name: str) -> str:
    """The target of the link ``cgroup`` or ``lease`` in its directory; "" where there is none."""
    try:
        path = os.readlink(f"{names.detached(identifier)}/{name}")
    except OSError:
        return ""
    return "" if path == NO_CGROUP else path


def unlink(identifier: str) -> None:
    """Removes both links."""
    for name in ("cgroup", "lease"):
        with suppress(FileNotFoundError):
            os.unlink(f"{names.detached(identifier)}/{name}")


def _pidfd(identifier: str, role: str) -> int:
    state = _read(identifier, "state")
    try:
        if state["boot"] != boot_id() or not state[role]:
            return -1
        return Process(*map(runtime.integer, state[role])).pidfd()
    except (KeyError, TypeError, ValueError):
        return -1


def _read(identifier: str, name: str) -> dict[str, Any]:
    """The object in a file; empty where it cannot be read."""
    try:
        return runtime.parse_object(runtime.read(f"{names.detached(identifier)}/{name}"))
    except OSError as e:
        if e.errno in EXHAUSTED:  # such an error says nothing about the file
            raise as_step_error(e, name) from None
    except ValueError:
        pass
    return {}

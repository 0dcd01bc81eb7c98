"""Names of containers, and their ids: what a word stands for.

A name is a file. That of a container which its maker waits for is locked while the maker lives, so that a dead one's
name is free again; that of a detached container is taken while the container's directory is there."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable

from minicontainer import runtime
from minicontainer.container.registry import ownership
from minicontainer.errors import SpecError, StepError
from minicontainer.spec import NAME

ID = re.compile(r"[0-9a-f]{64}")


def directory() -> str:
    """``names`` in the runtime directory."""
    return f"{runtime.directory()}/names"


def open_directory() -> int:
    """A descriptor of it; made where it is not there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(directory(), flags)
    except FileNotFoundError:
        runtime.make_directory(directory())
        return os.open(directory(), flags)


def detached(identifier: str) -> str:
    """The directory of the detached container of this id (64 hexadecimal digits)."""
    return f"{runtime.directory()}/containers/{identifier}"


def reserve(name: str, identifier: str, *, lasting: bool = True) -> int:
    """Takes ``name`` for this process: a locked descriptor. SpecError where another container has it.

    For a detached container it stays taken when the descriptor is closed; for one that is not ``lasting``, while
    somebody looks after it."""
    runtime.make_directory(directory())
    fd = _locked(name)
    if other := _container(fd):
        os.close(fd)
        raise SpecError("name", name, f"already exists (container {other[:12]})", "minicontainer rm or rename it")
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {identifier}{'' if lasting else ' foreground'}\n".encode("ascii"), 0)
    except BaseException as e:
        release(fd)
        if isinstance(e, OSError):
            raise StepError(e.errno or 0, f"write({directory()}/{name})") from None
        raise
    return fd


def _locked(name: str) -> int:
    """The file of ``name``, made where there is none, and its lock."""
    path = f"{directory()}/{name}"
    while True:
        try:
            fd = runtime.opened(path, os.O_RDWR | os.O_CREAT)
        except ValueError as e:
            raise SpecError("name", name, f"{path} {e}", "remove it") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 64).decode("ascii", "replace").partition(" ")[0] or "?"
            os.close(fd)
            raise SpecError("name", name, f"already exists (running, pid {holder})") from None
        except BaseException:
            os.close(fd)
            raise
        if _is_linked(path, fd):
            return fd
        os.close(fd)  # its owner removed it between our open and our lock


def _container(fd: int) -> str:
    """The container whose name this file is, and which is kept; "" where there is none."""
    identifier, lasting = _written(fd)
    return "" if not identifier or (not lasting and _is_left(identifier)) else identifier


def _written(fd: int) -> tuple[str, bool]:
    """The container that is there, of this name ("": none), and whether it was said to be lasting."""
    _, identifier, *more = [*os.pread(fd, 128, 0).decode("ascii", "replace").split(), "", ""]
    return identifier if len(identifier) == 64 and os.path.isdir(detached(identifier)) else "", not any(more)


def _is_left(identifier: str) -> bool:
    """Of one in the foreground: whether its maker was killed. Nobody looks after it then, or is about to start it."""
    if ownership.is_owned(identifier[:12]):
        return False
    try:
        fd = os.open(detached(identifier), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def ids() -> list[str]:
    """The ids of all that have a directory: the detached, and those in the foreground that are listed."""
    try:
        return [name for name in os.listdir(os.path.dirname(detached(""))) if ID.fullmatch(name)]
    except FileNotFoundError:
        return []


def unwatched() -> list[str]:
    """The ids of those that have the link ``cgroup``, which goes at the end of each run, and no owner process: one call
    for each container that has ended, since every command asks."""
    return [
        found for found in ids() if os.path.lexists(f"{detached(found)}/cgroup") and not ownership.is_owned(found[:12])
    ]


def find(word: str) -> list[str]:
    """The ids that ``word`` can stand for: an id, a name, or the beginning of ids; in this order, as docker's."""
    if ID.fullmatch(word) and os.path.isdir(detached(word)):
        return [word]
    if NAME.fullmatch(word) and (identifier := owner(word)):
        return [identifier]
    return [name for name in ids() if name.startswith(word)] if re.fullmatch(r"[0-9a-f]{1,63}", word) else []


def owner(name: str) -> str:
    """The id of the container that has this name, and is kept; "" where none has."""
    return _looked_up(name, _container)


def left(name: str) -> str:
    """The id of the container of this name that was in the foreground of who was killed; "" where there is none."""
    return _looked_up(name, lambda fd: "" if _container(fd) else _written(fd)[0])


def _looked_up(name: str, find: Callable[[int], str]) -> str:
    try:
        fd = runtime.opened(f"{directory()}/{name}")
    except (OSError, ValueError):
        return ""
    try:
        return find(fd)
    finally:
        os.close(fd)


def release(fd: int) -> None:
    """Gives the name back: removed while it is still ours."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if _is_linked(path, fd):
        os.unlink(path)
    os.close(fd)


def all_names() -> list[str]:
    """All that are taken, or were."""
    try:
        return sorted(os.listdir(directory()))
    except OSError:
        return []


def stale() -> list[str]:
    """Paths of names whose owner is gone without releasing them."""
    found = []
    for name in all_names():
        path = f"{directory()}/{name}"
        try:
            fd = runtime.opened(path)
        except (OSError, ValueError):
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _container(fd):
                found.append(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    return found


def _is_linked(path: str, fd: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

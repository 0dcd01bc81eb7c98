"""The names and ids of containers.

A name is a file. The name of a container in the foreground is locked while its owner process lives, and free again
after that. The name of a detached container is taken while the container's directory exists."""

from __future__ import annotations

import os

from minicontainer import runtime
from minicontainer.container.registry import ownership
from minicontainer.errors import SpecError, StepError
from minicontainer.spec import is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ID_DIGITS = 64  # hexadecimal


def directory() -> str:
    """``names`` in the runtime directory."""
    return f"{runtime.directory()}/names"


def open_directory() -> int:
    """A descriptor of ``directory()``, which is created where it is missing."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(directory(), flags)
    except FileNotFoundError:
        runtime.make_directory(directory())
        return os.open(directory(), flags)


def detached(identifier: str) -> str:
    """The directory of the detached container of this id (64 hexadecimal digits)."""
    return f"{runtime.directory()}/containers/{identifier}"


def reserve(name: str, identifier: str, *, persistent: bool = True) -> int:
    """Reserves ``name`` for this process; returns a locked descriptor. SpecError where another container has the name.

    The name of a detached container stays reserved when the descriptor is closed; one that is not ``persistent`` stays
    reserved while the container has an owner."""
    runtime.make_directory(directory())
    fd = _locked(name)
    if other := _container(fd):
        os.close(fd)
        raise SpecError("name", name, f"already exists (container {other[:12]})", "minicontainer rm or rename it")
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {identifier}{'' if persistent else ' foreground'}\n".encode("ascii"), 0)
    except BaseException as e:
        release(fd)
        if isinstance(e, OSError):
            raise StepError(e.errno or 0, f"write({directory()}/{name})") from None
        raise
    return fd


def _locked(name: str) -> int:
    """Opens and locks the file of ``name``, which is created where it is missing."""
    import fcntl

    path = f"{directory()}/{name}"
    while True:
        try:
            fd = runtime.open_regular(path, os.O_RDWR | os.O_CREAT)
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
        os.close(fd)  # its owner removed it between open and flock


def _container(fd: int) -> str:
    """The id of the existing container that the file names; "" where there is none."""
    identifier, persistent = _read(fd)
    return "" if not identifier or (not persistent and _is_left_behind(identifier)) else identifier


def _read(fd: int) -> tuple[str, bool]:
    """(id of the container that the file names, or "" where its directory does not exist; whether the name is
    persistent)."""
    _, identifier, *more = [*os.pread(fd, 128, 0).decode("ascii", "replace").split(), "", ""]
    return identifier if len(identifier) == 64 and os.path.isdir(detached(identifier)) else "", not any(more)


def _is_left_behind(identifier: str) -> bool:
    """Whether the owner of a container in the foreground was killed: no process owns the container, or is starting
    it."""
    if ownership.is_owned(identifier[:12]):
        return False
    try:
        fd = os.open(detached(identifier), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    return runtime.is_unlocked(fd)


def ids() -> list[str]:
    """The ids of all containers with a directory: detached ones, and those in the foreground."""
    try:
        return [name for name in os.listdir(os.path.dirname(detached(""))) if _is_id(name)]
    except FileNotFoundError:
        return []


def without_owner() -> list[str]:
    """The ids of containers with the link ``cgroup``, which is removed at the end of each run, and without an owner
    process. Cheap, since every command calls this."""
    return [id for id in ids() if os.path.lexists(f"{detached(id)}/cgroup") and not ownership.is_owned(id[:12])]


def find(text: str) -> list[str]:
    """The ids of the containers that ``text`` can mean: an id, else a name, else the start of ids, as in docker."""
    if _is_id(text) and os.path.isdir(detached(text)):
        return [text]
    if is_name(text) and (identifier := owner(text)):
        return [identifier]
    return [name for name in ids() if name.startswith(text)] if text and _is_hex(text) else []


def _is_id(text: str) -> bool:
    return len(text) == ID_DIGITS and _is_hex(text)


def _is_hex(text: str) -> bool:
    return set(text) <= set("0123456789abcdef")


def owner(name: str) -> str:
    """The id of the existing container with this name; "" where there is none."""
    return _look_up(name, _container)


def left_in_foreground(name: str) -> str:
    """The id of the container with this name whose owner was killed while it was in the foreground; "" where there is
    none."""
    return _look_up(name, lambda fd: "" if _container(fd) else _read(fd)[0])


def _look_up(name: str, find: Callable[[int], str]) -> str:
    try:
        fd = runtime.open_regular(f"{directory()}/{name}")
    except (OSError, ValueError):
        return ""
    try:
        return find(fd)
    finally:
        os.close(fd)


def release(fd: int) -> None:
    """Releases a name: removes its file, unless the file was replaced, and closes the descriptor."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if _is_linked(path, fd):
        os.unlink(path)
    os.close(fd)


def all_names() -> list[str]:
    """All names with a file, reserved or not."""
    try:
        return sorted(os.listdir(directory()))
    except OSError:
        return []


def stale() -> list[str]:
    """The paths of names whose owner ended without releasing them."""
    import fcntl

    paths = []
    for name in all_names():
        path = f"{directory()}/{name}"
        try:
            fd = runtime.open_regular(path)
        except (OSError, ValueError):
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _container(fd):
                paths.append(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    return paths


def _is_linked(path: str, fd: int) -> bool:
    try:
        linked = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    opened = os.fstat(fd)
    return (linked.st_dev, linked.st_ino) == (opened.st_dev, opened.st_ino)

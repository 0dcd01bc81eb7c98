"""Names of running containers: a file each, locked while its owner lives, so that a dead owner's name is free again."""

from __future__ import annotations

import fcntl
import os

from minicontainer.errors import SpecError


def directory() -> str:
    """``/run/minicontainer/names``, or below ``$XDG_RUNTIME_DIR`` (else /tmp, by user id) for an ordinary user."""
    if os.geteuid() == 0:
        return "/run/minicontainer/names"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/minicontainer-{os.geteuid()}"
    return f"{runtime}/minicontainer/names"


def reserve(name: str, identifier: str) -> int:
    """Takes ``name`` for this process: a locked descriptor. SpecError where a live process holds it."""
    os.makedirs(directory(), mode=0o700, exist_ok=True)
    path = f"{directory()}/{name}"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 64).decode("ascii", "replace").split()
            os.close(fd)
            raise SpecError("name", name, f"already exists (running, pid {owner[0] if owner else '?'})") from None
        if _is_linked(path, fd):
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()} {identifier}\n".encode("ascii"))
            return fd
        os.close(fd)  # its owner removed it between our open and our lock


def release(fd: int) -> None:
    """Gives the name back: removed while it is still ours."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if _is_linked(path, fd):
        os.unlink(path)
    os.close(fd)


def stale() -> list[str]:
    """Paths of names whose owner is gone without releasing them."""
    found = []
    try:
        entries = sorted(os.listdir(directory()))
    except OSError:
        return []
    for name in entries:
        path = f"{directory()}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

"""Where what is known of containers is kept: the state directory.

Theory of operation. What belongs to one state directory bears its mark where it stands beside what belongs to another
one (control groups, bridges, the table of nftables): so who looks after one directory never touches what is another's,
whatever paths and process numbers look like from there. What a host has once, whoever asks for it (ranges of ids,
whether it forwards), is kept in HOST.
"""

from __future__ import annotations

import os
from functools import lru_cache

from minicontainer.errors import StepError, UnsupportedError

VARIABLE = "MINICONTAINER_ROOT"
HOST = "/run/minicontainer"


def directory() -> str:
    """``$MINICONTAINER_ROOT``; else ``/run/minicontainer`` for root, and for an ordinary user a directory below
    ``$XDG_RUNTIME_DIR`` (else in /tmp, by user id).

    UnsupportedError where that place is somebody else's."""
    if chosen := os.environ.get(VARIABLE):
        _check(VARIABLE, chosen, make=True)
        return chosen.rstrip("/")
    if os.geteuid() == 0:
        return HOST
    own = f"/tmp/minicontainer-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or own
    _check("XDG_RUNTIME_DIR", runtime, make=runtime == own)
    return f"{runtime}/minicontainer"


@lru_cache(maxsize=8)
def _check(variable: str, path: str, *, make: bool) -> None:
    """The directory must be the caller's: who else could write there could pass for a monitor. Anybody can make one of
    any name in /tmp."""
    if not path.startswith("/"):
        raise UnsupportedError(variable, path, "is no absolute path")
    try:
        if make:
            os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as e:
        raise UnsupportedError(variable, path, (e.strerror or str(e)).lower()) from None
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnsupportedError(variable, path, "others can write there", "a directory of your own, mode 700")


def suffix() -> str:
    """What the names of things outside it end with: "" of the default directory, else ``-`` and its mark."""
    return f"-{mark()}" if os.environ.get(VARIABLE) else ""


def mark() -> str:
    """Eight hexadecimal digits that stand for the state directory, from the first time that it is asked for."""
    return _mark(directory())


@lru_cache(maxsize=8)
def _mark(place: str) -> str:
    path = f"{place}/mark"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    part = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, os.urandom(4).hex().encode("ascii"))
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another was quicker
        finally:
            os.close(fd)
            os.unlink(part)
    except OSError as e:
        raise StepError(e.errno or 0, f"open({part!r})", hint="a state directory that can be written to") from None
    return _read(path)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        text = os.read(fd, 9).decode("ascii", "replace")
    finally:
        os.close(fd)
    if len(text) != 8 or not set(text) <= set("0123456789abcdef"):
        raise UnsupportedError("state directory", path, f"{text!r} is no mark", "remove it when no container runs")
    return text

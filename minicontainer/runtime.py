"""Where what is known of containers is kept: the state directory.

Theory of operation. What belongs to one state directory bears its mark where it stands beside what belongs to another
one (control groups, bridges, the table of nftables): so who looks after one directory never touches what is another's,
whatever paths and process numbers look like from there. The mark is made of its file's place too (device and inode):
a copy of a state directory has the same files but none of the locks by which it is known who lives, so it is another
one, and one that was moved is what it was. What a host has once, whoever asks for it (ranges of ids,
whether it forwards), is kept in HOST.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import zlib
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from minicontainer.errors import EXHAUSTED, StepError, UnsupportedError

VARIABLE = "MINICONTAINER_ROOT"
HOST = "/run/minicontainer"
LASTING = "/var/lib/minicontainer"
SALT = 8  # hexadecimal digits in the file of a mark
T = TypeVar("T")


def directory() -> str:
    """``$MINICONTAINER_ROOT``; else ``/run/minicontainer`` for root, and for who cannot write there (an ordinary user,
    root of a user namespace) a directory below ``$XDG_RUNTIME_DIR`` (else in /tmp, by user id).

    UnsupportedError where that place is somebody else's."""
    if chosen := os.environ.get(VARIABLE):
        _check(VARIABLE, chosen, make=True)
        return chosen.rstrip("/")
    if os.geteuid() == 0 and _is_roots(HOST):
        return HOST
    own = f"/tmp/minicontainer-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or own
    _check("XDG_RUNTIME_DIR", runtime, make=runtime == own)
    return f"{runtime}/minicontainer"


def lasting() -> str:
    """Where what outlives the host's shutdown is kept: ``/var/lib/minicontainer``; of an ordinary user below
    ``$XDG_DATA_HOME`` (else ``~/.local/share``), as of root where that cannot be written to; of a state directory that
    was chosen, that itself."""
    if os.environ.get(VARIABLE):
        return directory()
    if os.geteuid() == 0 and _is_writable(LASTING):
        return LASTING
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return f"{home}/minicontainer"


def make_directory(path: str) -> None:
    """A directory of the state, with those above it, where they are missing: nobody else can walk there."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):  # or another made it meanwhile
                raise


@lru_cache(maxsize=8)
def _is_roots(path: str) -> bool:
    """Whether this root can write there; asked once, so that all that a process makes is in one place."""
    return _is_writable(path)


def _is_writable(path: str) -> bool:
    return os.access(path if os.path.lexists(path) else os.path.dirname(path), os.W_OK | os.X_OK, effective_ids=True)


@lru_cache(maxsize=8)
def _check(variable: str, path: str, *, make: bool) -> None:
    """The directory must be the caller's: who else could write there could pass for a monitor. Anybody can make one of
    any name in /tmp."""
    if not path.startswith("/"):
        raise UnsupportedError(variable, path, "is no absolute path")
    try:
        if make:
            make_directory(path)
        found = os.lstat(path)
    except OSError as e:
        raise UnsupportedError(variable, path, (e.strerror or str(e)).lower()) from None
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnsupportedError(variable, path, "others can write there", "a directory of your own, mode 700")


def suffix() -> str:
    """What the names of things outside it end with: "" of the default directory, else ``-`` and its mark."""
    return f"-{mark()}" if os.environ.get(VARIABLE) else ""


def mark() -> str:
    """Eight hexadecimal digits that stand for the state directory, from the first time that it is asked for. A copy of
    it has others."""
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
        make_directory(place)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, os.urandom(SALT // 2).hex().encode("ascii"))
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another was quicker
        finally:
            os.close(fd)
            os.unlink(part)
    except OSError as e:
        hint = "" if e.errno in EXHAUSTED else "a state directory that can be written to"
        raise StepError(e.errno or 0, f"open({part!r})", hint=hint) from None
    return _read(path)


def _read(path: str) -> str:
    """Not of the directory's own inode: that of one in an overlay is another one when it was forgotten meanwhile
    (Documentation/filesystems/overlayfs.rst, "Inode properties")."""
    try:
        with open(opened(path), "rb", buffering=0) as f:
            data, there = f.read(SALT + 1), os.fstat(f.fileno())
    except ValueError as e:
        raise UnsupportedError("state directory", path, f"{e}", "remove it when no container runs") from None
    if len(data) != SALT or not set(data) <= set(b"0123456789abcdef"):
        raise UnsupportedError("state directory", path, f"{data!r} is no mark", "remove it when no container runs")
    return f"{zlib.crc32(b'%b %d %d' % (data, there.st_dev, there.st_ino)):08x}"


# ---- its files

FILE_MAX = 4 << 20  # bytes: far above what any file of ours has


def opened(path: str, flags: int = os.O_RDONLY, *, at: int | None = None) -> int:
    """A descriptor of a file in it (``at``: in that directory): nothing but a regular file, which no link leads to and
    no reader waits for, nor a lease of it (whatever somebody has put there). ValueError where it is something else;
    OSError, as of open(2)."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, 0o600, dir_fd=at)
    except OSError as e:
        if e.errno not in NO_FILE:
            raise
        raise ValueError("is no regular file") from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ValueError("is no regular file")


NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # a link, a directory or socket


def read(path: str, *, at: int | None = None) -> str:
    """``read_bytes`` as text; ValueError too where it is none."""
    try:
        return read_bytes(path, at=at).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is no text") from None


def read_bytes(path: str, *, at: int | None = None) -> bytes:
    """What a file in it holds. ValueError where it is no regular file, or has more than FILE_MAX bytes; OSError, as of
    open(2)."""
    with open(opened(path, at=at), "rb", buffering=0) as f:
        data = f.read(FILE_MAX + 1)
    if len(data) > FILE_MAX:
        raise ValueError(f"has more than {FILE_MAX} bytes")
    return data


def read_on(fd: int, size: int) -> bytes:
    """What comes next in a file that grows, as read(2); holes, which nobody of ours makes, are left out."""
    try:
        os.lseek(fd, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_DATA)
    except OSError as e:
        if e.errno == errno.ENXIO:  # there is no more
            return b""
    return os.read(fd, size)


def write(path: str, data: str | bytes, mode: int = 0o600) -> None:
    """A whole file, synced; StepError where that cannot be, as on a full disk, and then there is none."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
        try:
            with open(fd, "wb", closefd=False) as f:
                f.write(data.encode() if isinstance(data, str) else data)
            os.fsync(fd)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
    except OSError as e:
        raise StepError(e.errno or 0, f"write({path!r})") from None


def parsed(text: str) -> dict[str, Any]:
    """The object of JSON (RFC 8259) in a file. ValueError where it is none: numbers that are none too, and what is
    nested deeper than Python goes."""
    import json

    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("is no object of JSON")
    return found


def whole(value: object, most: int = 2**63 - 1) -> int:
    """A whole number of such a file, from 0 to ``most``. ValueError where it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is no number from 0 to {most}")
    return value


def of(kind: type[T], value: object) -> T:
    """A value that must be of that type. ValueError where it is not."""
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise ValueError(f"{value!r:.40} is no {kind.__name__}")
    return value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")

"""The state directory: the files of containers, networks and events.

Theory of operation. Resources outside the state directory (cgroups, bridges, the nftables table) have its mark in their
names: so a process that works with one state directory never touches resources of another one, even in another mount or
pid namespace. The mark depends on device and inode of its file: so a copied state directory, which has none of the
locks of running containers, has another mark; a directory that was moved keeps its mark. Resources that a host has only
once (ranges of ids, IP forwarding) are recorded in HOST."""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import EXHAUSTED, StepError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import contextmanager
    from functools import lru_cache
    from typing import Any, NoReturn, TypeVar

    T = TypeVar("T")
else:
    from minicontainer.light import contextmanager, lru_cache

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # for open(2)
VARIABLE = "MINICONTAINER_ROOT"
_ENCODED = VARIABLE.encode()
_variables: Mapping[bytes, bytes] = getattr(os.environ, "_data", os.environb)  # a dict below os.environ, in CPython
HOST = "/run/minicontainer"
PERSISTENT = "/var/lib/minicontainer"
SALT_DIGITS = 8  # hexadecimal digits in the file ``mark``


def chosen() -> bytes | None:
    """``$MINICONTAINER_ROOT``. A start asks for it, and does without the four functions of os.environ."""
    return _variables.get(_ENCODED)


def directory() -> str:
    """``$MINICONTAINER_ROOT``; else ``/run/minicontainer`` for root; else, if that is not writable (an ordinary user,
    root of a user namespace), a directory below ``$XDG_RUNTIME_DIR`` (else in /tmp, by user id).

    UnsupportedError if another user can write to it."""
    if chosen := os.environ.get(VARIABLE):
        _check(VARIABLE, chosen, make=True)
        return chosen.rstrip("/")
    if os.geteuid() == 0 and _is_usable_by_root(HOST):
        return HOST
    own = f"/tmp/minicontainer-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or own
    _check("XDG_RUNTIME_DIR", runtime, make=runtime == own)
    return f"{runtime}/minicontainer"


def persistent() -> str:
    """The directory of files that outlive a reboot: the state directory, if $MINICONTAINER_ROOT names one; else
    ``/var/lib/minicontainer`` for root, if that is writable; else below ``$XDG_DATA_HOME`` (``~/.local/share``)."""
    if os.environ.get(VARIABLE):
        return directory()
    if os.geteuid() == 0 and _is_writable(PERSISTENT):
        return PERSISTENT
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return f"{home}/minicontainer"


def make_directory(path: str) -> None:
    """Makes a directory, mode 0700, and missing parents."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):  # else another process made it meanwhile
                raise


@contextmanager
def locked_directory(path: str) -> Iterator[int]:
    """Holds the lock on a directory of mode 0700, which is made if it is missing; yields a descriptor of it."""
    import fcntl

    make_directory(path)
    fd = os.open(path, DIRECTORY)
    try:
        if os.fstat(fd).st_mode & 0o077:
            os.fchmod(fd, 0o700)
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


@lru_cache(maxsize=8)
def _is_usable_by_root(path: str) -> bool:
    """Whether root can write to ``path``; cached, so that a process uses one directory."""
    return _is_writable(path)


def _is_writable(path: str) -> bool:
    return os.access(path if os.path.lexists(path) else os.path.dirname(path), os.W_OK | os.X_OK, effective_ids=True)


@lru_cache(maxsize=8)
def _check(variable: str, path: str, *, make: bool) -> None:
    """UnsupportedError unless the directory belongs to the caller: a user with write access could impersonate a
    monitor, and any user can create a directory of any name in /tmp."""
    if not path.startswith("/"):
        raise UnsupportedError(variable, path, "is no absolute path")
    try:
        if make:
            make_directory(path)
        status = os.lstat(path)
    except OSError as e:
        raise UnsupportedError(variable, path, (e.strerror or str(e)).lower()) from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UnsupportedError(variable, path, "others can write there", "a directory of your own, mode 700")


def suffix() -> str:
    """The suffix of the names of bridges, tables and cgroups: "" for the default directory, else ``-`` and the mark."""
    return f"-{mark()}" if os.environ.get(VARIABLE) else ""


def mark() -> str:
    """Eight hexadecimal digits that identify the state directory; made at the first call. A copy has another mark."""
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
            os.write(fd, os.urandom(SALT_DIGITS // 2).hex().encode("ascii"))
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another process made it meanwhile
        finally:
            os.close(fd)
            os.unlink(part)
    except OSError as e:
        hint = "" if e.errno in EXHAUSTED else "a state directory that can be written to"
        raise StepError(e.errno or 0, f"open({part!r})", hint=hint) from None
    return _read(path)


def _read(path: str) -> str:
    """The mark, from the inode of the file: that of the directory may change in an overlay (the kernel's overlayfs.rst,
    "Inode properties")."""
    try:
        with open(open_regular(path), "rb", buffering=0) as f:
            data, status = f.read(SALT_DIGITS + 1), os.fstat(f.fileno())
    except ValueError as e:
        raise UnsupportedError("state directory", path, f"{e}", "remove it when no container runs") from None
    if len(data) != SALT_DIGITS or not set(data) <= set(b"0123456789abcdef"):
        raise UnsupportedError("state directory", path, f"{data!r} is no mark", "remove it when no container runs")
    return f"{_crc32(b'%b %d %d' % (data, status.st_dev, status.st_ino)):08x}"


def _crc32(data: bytes) -> int:
    """As zlib.crc32, for a few bytes: zlib takes longer to load."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


# ---- files of the state directory

FILE_MAX = 4 << 20  # bytes: far above the size of any state file


def open_regular(path: str, flags: int = os.O_RDONLY, *, at: int | None = None) -> int:
    """Opens a file of the state directory (``at``: relative to that directory). The file may have been replaced: a
    link, a FIFO or a terminal is refused, and the open does not wait for a lease (fcntl(2)). ValueError if it is no
    regular file; OSError of open(2)."""
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


def is_unlocked(fd: int) -> bool:
    """Whether no process holds an exclusive lock (flock(2)) on a file or directory. Closes ``fd``."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def read(path: str, *, at: int | None = None) -> str:
    """``read_bytes`` as text; ValueError also if it is not UTF-8."""
    try:
        return read_bytes(path, at=at).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is no text") from None


def read_bytes(path: str, *, at: int | None = None) -> bytes:
    """The content of a file. ValueError if it is no regular file, or has more than FILE_MAX bytes; OSError of
    open(2)."""
    with open(open_regular(path, at=at), "rb", buffering=0) as f:
        data = f.read(FILE_MAX + 1)
    if len(data) > FILE_MAX:
        raise ValueError(f"has more than {FILE_MAX} bytes")
    return data


def read_on(fd: int, size: int) -> bytes:
    """read(2) of a growing file; skips holes, which minicontainer never writes."""
    try:
        os.lseek(fd, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_DATA)
    except OSError as e:
        if e.errno == errno.ENXIO:  # end of file
            return b""
    return os.read(fd, size)


def write(path: str, data: str | bytes, mode: int = 0o600) -> None:
    """Writes and syncs a file. StepError, as on a full disk; the file is removed then."""
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


def parse_object(text: str) -> dict[str, Any]:
    """Parses a JSON object (RFC 8259). ValueError; also for NaN and infinities, and nesting beyond Python's recursion
    limit."""
    try:
        value = _parse(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("is no object of JSON")
    return value


def _parse(text: str) -> Any:
    try:
        value, end = _scanner()(text, 0)
        if not text[end:].strip(" \t\r\n"):
            return value
    except (StopIteration, ValueError, SystemError):  # the last where json, which has the exception, is not imported
        pass
    import json  # says what is wrong

    return json.loads(text, parse_constant=_no_number, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) < float("inf") else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


class _Numbers:
    """The attributes that make_scanner reads, as of json.JSONDecoder."""

    strict, object_hook, object_pairs_hook, parse_int = True, None, None, int
    parse_float, parse_constant = staticmethod(_finite), staticmethod(_no_number)
    memo: dict[str, str] = {}  # noqa: RUF012 - C empties it after each text


@lru_cache(maxsize=1)
def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    from _json import make_scanner  # json imports re

    return make_scanner(_Numbers)  # type: ignore[arg-type]


def integer(value: object, most: int = 2**63 - 1) -> int:
    """Checks an integer from 0 to ``most``. ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is no number from 0 to {most}")
    return value


def typed(kind: type[T], value: object) -> T:
    """Checks the type of a value. ValueError."""
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise ValueError(f"{value!r:.40} is no {kind.__name__}")
    return value

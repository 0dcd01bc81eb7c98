"""/etc/hosts of who is on a network: one file for all, in which each has lines (hosts(5)).

Theory of operation. A line is as long as it was when it was written first, filled with blanks, and what is not in use
is a comment: so one byte, "#", takes a name away (MC_COMMENT_OUT of the plan that ends a lease), and who reads the file
meanwhile sees the one or the other. Who wants names of its own (--add-host) gets a file of its own beside it: the lines
are at the same offsets in all files, and are written to all, but what is one's own is RESERVED in those of the others.

Who has a file mounted can open it, and where his uid is its owner's (root of a container that has the host's ids)
could take a lease of it (F_SETLEASE of fcntl(2)), for whose end all others would wait who open it. None is to be had
of a file that somebody has open for writing: so each owner of a lease of ours has it open, as long as that lasts
(``hold``). One that is there all the same is of a time when nobody was on the network: the file is made anew. And
nothing here waits for one (O_NONBLOCK).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from minicontainer import runtime
from minicontainer.errors import Error, StepError, sentence

SHARED = "names"
RESERVED = "\t#"  # how a line begins that is somebody else's own: then comes whose
STEP = 32  # the length of a line is a multiple of it
LOCALHOST = (("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback"))


def text(entries: Iterable[tuple[str, str]]) -> str:
    """Lines of addresses and names."""
    return "".join(f"{address}\t{names}\n" for address, names in entries)


def make(directory: int, name: str = SHARED) -> None:
    """A file, with the lines that the shared one has."""
    try:
        content = read(directory, SHARED)
    except FileNotFoundError:
        content = text(LOCALHOST).encode()
    _unlink(directory, name)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=directory)
    try:
        os.fchmod(fd, 0o644)
        _write(fd, content, 0)
    except BaseException:
        _unlink(directory, name)
        raise
    finally:
        os.close(fd)


def _write(fd: int, data: bytes, at: int) -> None:
    """All of it: half a line would take the next one with it."""
    try:
        if os.pwrite(fd, data, at) == len(data):
            return
        reason = errno.ENOSPC
    except OSError as e:
        reason = e.errno or 0
    raise StepError(reason, f"write({os.readlink(f'/proc/self/fd/{fd}')!r})")


def hold(directory: int) -> int:
    """A descriptor of the shared file, open for writing: nobody can take a lease of it meanwhile. Under the network's
    lock."""
    try:
        return to_write(directory, SHARED)
    except (BlockingIOError, FileNotFoundError):
        _unlink(directory, SHARED)
        make(directory)
    return to_write(directory, SHARED)


def to_write(directory: int, name: str) -> int:
    """A descriptor of a file, to write to. Error where something else is there; OSError, as of open(2)."""
    try:
        return runtime.opened(name, os.O_WRONLY, at=directory)
    except ValueError as e:
        raise refused(directory, name, e) from None


def refused(directory: int, name: str, error: ValueError) -> Error:
    """What is said of a file that is none of ours."""
    return Error(sentence("hosts file", f"{os.readlink(f'/proc/self/fd/{directory}')}/{name}", str(error), "remove it"))


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def add(directory: int, address: str, names: str, only: str = "") -> int:
    """A line in every file, or in one ``only``; its offset. Under the network's lock."""
    line = f"{address}\t{names}".encode()
    content = read(directory, SHARED)
    at, length = _place(content, -(-(len(line) + 1) // STEP) * STEP)
    line = line.ljust(length - 1) + b"\n"
    reserved = f"{RESERVED}{only} ".encode().ljust(length - 1) + b"\n"
    for name in os.listdir(directory):
        try:
            fd = to_write(directory, name)
        except BlockingIOError:
            continue  # its owner has died
        try:
            _write(fd, line if not only or name == only else reserved, at)
        except StepError:
            if at == len(content):
                os.ftruncate(fd, at)
            raise
        finally:
            os.close(fd)
    return at


def lines_of(directory: int, address: str) -> list[int]:
    """The offsets of the lines of an address, and of those that are its own."""
    content, found = read(directory, SHARED), []
    for begin in (f"\n{address}\t".encode(), f"\n{RESERVED}{address} ".encode()):
        at = content.find(begin)
        while at >= 0:
            found.append(at + 1)
            at = content.find(begin, at + 1)
    return found


def _place(content: bytes, length: int) -> tuple[int, int]:
    """Where a line of that length goes: in a comment's place that is long enough, or at the end."""
    at = content.find(b"\n#")
    while at >= 0:
        end = content.index(b"\n", at + 1)
        if end - at >= length:
            return at + 1, end - at
        at = content.find(b"\n#", end)
    return len(content), length


def read(directory: int, name: str) -> bytes:
    """A file's content. Error where it is none of ours: what is no file, or larger than any."""
    try:
        return runtime.read(name, at=directory).encode()
    except ValueError as e:
        raise refused(directory, name, e) from None

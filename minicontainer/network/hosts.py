"""/etc/hosts of the members of a network: one shared file, with lines of each member (hosts(5)).

Theory of operation. A line keeps its length, padded with blanks, and an unused line is a comment: so one byte, "#",
removes a name (MC_COMMENT_OUT in the release plan), and a reader sees the old or the new line. A member with private
names (--add-host) gets a file of its own. Each line has the same offset in all files; a private name is a RESERVED line
in the other files.

A container can open its mounted hosts file, and with the uid of the file's owner (root with the host's ids) it could
take a lease on it (F_SETLEASE of fcntl(2)), which delays every open(2) of the file. A file that is open for writing
cannot get such a lease: so the owner of each network lease has the file open (``open_shared``). A lease that exists
was taken while the network had no members; then the file is created anew. No open(2) here waits for a lease
(O_NONBLOCK)."""

from __future__ import annotations

import errno
import os

from minicontainer import runtime
from minicontainer.errors import Error, StepError, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SHARED = "names"
RESERVED = "\t#"  # the prefix of a line that is another member's private name; its address follows
STEP = 32  # the length of a line is a multiple of this
LOCALHOST = (("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback"))


def text(entries: Iterable[tuple[str, str]]) -> str:
    """Lines of hosts(5)."""
    return "".join(f"{address}\t{names}\n" for address, names in entries)


def make(directory: int, name: str = SHARED) -> None:
    """Creates a file with the lines of the shared file."""
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
    """Writes all of ``data``, or raises: half a line would corrupt the next one."""
    try:
        if os.pwrite(fd, data, at) == len(data):
            return
        reason = errno.ENOSPC
    except OSError as e:
        reason = e.errno or 0
    raise StepError(reason, f"write({os.readlink(f'/proc/self/fd/{fd}')!r})")


def open_shared(directory: int) -> int:
    """Opens the shared file for writing: so no process can take a lease on it. The caller holds the network's lock."""
    try:
        return open_to_write(directory, SHARED)
    except (BlockingIOError, FileNotFoundError):
        _unlink(directory, SHARED)
        make(directory)
    return open_to_write(directory, SHARED)


def open_to_write(directory: int, name: str) -> int:
    """Opens a file for writing. Error if it is no regular file; OSError of open(2)."""
    try:
        return runtime.open_regular(name, os.O_WRONLY, at=directory)
    except ValueError as e:
        raise invalid_file(directory, name, e) from None


def invalid_file(directory: int, name: str, error: ValueError) -> Error:
    """The error of a hosts file that minicontainer did not write."""
    return Error(sentence("hosts file", f"{os.readlink(f'/proc/self/fd/{directory}')}/{name}", str(error), "remove it"))


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def add(directory: int, address: str, names: str, only: str = "") -> int:
    """Adds a line to every file, or to the file ``only``; returns its offset. The caller holds the network's lock."""
    line = f"{address}\t{names}".encode()
    content = read(directory, SHARED)
    at, length = _find_line(content, -(-(len(line) + 1) // STEP) * STEP)
    line = line.ljust(length - 1) + b"\n"
    reserved = f"{RESERVED}{only} ".encode().ljust(length - 1) + b"\n"
    for name in os.listdir(directory):
        try:
            fd = open_to_write(directory, name)
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
    """The offsets of the lines of an address, private ones included."""
    content, offsets = read(directory, SHARED), []
    for prefix in (f"\n{address}\t".encode(), f"\n{RESERVED}{address} ".encode()):
        at = content.find(prefix)
        while at >= 0:
            offsets.append(at + 1)
            at = content.find(prefix, at + 1)
    return offsets


def _find_line(content: bytes, length: int) -> tuple[int, int]:
    """Offset and length for a new line: an unused line that is long enough, or the end of the file."""
    at = content.find(b"\n#")
    while at >= 0:
        end = content.index(b"\n", at + 1)
        if end - at >= length:
            return at + 1, end - at
        at = content.find(b"\n#", end)
    return len(content), length


def read(directory: int, name: str) -> bytes:
    """The content of a file. Error if it is no regular file, or too large."""
    try:
        return runtime.read(name, at=directory).encode()
    except ValueError as e:
        raise invalid_file(directory, name, e) from None

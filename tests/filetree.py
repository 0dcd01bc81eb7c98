"""Operations on files in a tree, and random ones: the same in two trees must have the same results and errors."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import socket
import stat
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4  # renameat2(2)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # fallocate(2)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
SLOTS = 4
Function = Callable[[], object]


def called(result: int) -> int:
    """The result of a function of libc; an OSError if it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def shown(status: os.stat_result) -> tuple[object, ...]:
    """What of a file's status is the same in both trees."""
    size = None if stat.S_ISDIR(status.st_mode) else status.st_size
    return oct(status.st_mode), status.st_nlink, status.st_uid, status.st_gid, size, status.st_rdev


class Tree:
    """Each method is one operation; ``fds`` are the files that it has open."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.fds = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), [-1] * SLOTS

    def path(self, name: str) -> str:
        """The directory is reached by its descriptor, also by who may not reach it by its name."""
        return f"/proc/self/fd/{self._directory}/{name}"

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_all()
        os.close(self._directory)

    def close_all(self) -> None:
        for slot in range(SLOTS):
            self.close(slot)

    # ---- names

    def stat(self, name: str, follow: bool) -> object:
        return shown(os.stat(self.path(name), follow_symlinks=follow))

    def listing(self, name: str) -> object:
        with os.scandir(self.path(name)) as entries:
            return sorted((e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries)

    def mkdir(self, name: str, mode: int) -> None:
        os.mkdir(self.path(name), mode)

    def rmdir(self, name: str) -> None:
        os.rmdir(self.path(name))

    def unlink(self, name: str) -> None:
        os.unlink(self.path(name))

    def rename(self, name: str, to: str, flags: int) -> None:
        both = os.fsencode(self.path(name)), os.fsencode(self.path(to))
        called(_libc.renameat2(AT_FDCWD, both[0], AT_FDCWD, both[1], flags))

    def link(self, name: str, to: str, follow: bool) -> None:
        self._link(self.path(name), to, follow)

    def _link(self, source: str, to: str, follow: bool) -> None:
        """os.link follows no link, whatever it is told, as long as it is given no directory's descriptor."""
        both = os.fsencode(source), os.fsencode(self.path(to))
        called(_libc.linkat(AT_FDCWD, both[0], AT_FDCWD, both[1], AT_SYMLINK_FOLLOW if follow else 0))

    def symlink(self, target: str, name: str) -> None:
        os.symlink(target, self.path(name))

    def readlink(self, name: str) -> str:
        return os.readlink(self.path(name))

    def mknod(self, name: str, mode: int, device: int) -> None:
        os.mknod(self.path(name), mode, device)

    def bind(self, name: str) -> None:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path(name))

    # ---- attributes

    def chmod(self, name: str, mode: int) -> object:
        os.chmod(self.path(name), mode)
        return self.stat(name, True)

    def chown(self, name: str, uid: int, gid: int, follow: bool) -> object:
        """Root's always names somebody: chown(2) to nobody takes set-user-id away, which a FUSE server is not told."""
        if (uid, gid) == (-1, -1) and os.geteuid() == 0:
            uid = os.stat(self.path(name), follow_symlinks=follow).st_uid
        os.chown(self.path(name), uid, gid, follow_symlinks=follow)
        return self.stat(name, follow)

    def utime(self, name: str, atime: int, mtime: int, follow: bool) -> object:
        os.utime(self.path(name), ns=(atime, mtime), follow_symlinks=follow)
        status = os.stat(self.path(name), follow_symlinks=follow)
        return status.st_atime_ns, status.st_mtime_ns

    def touch(self, name: str) -> None:
        os.utime(self.path(name))

    def truncate(self, name: str, size: int) -> object:
        os.truncate(self.path(name), size)
        return self.stat(name, True)

    def access(self, name: str, mode: int) -> bool:
        return os.access(self.path(name), mode)

    def setxattr(self, name: str, key: str, value: bytes, flags: int, follow: bool) -> None:
        os.setxattr(self.path(name), key, value, flags, follow_symlinks=follow)

    def getxattr(self, name: str, key: str, follow: bool) -> bytes:
        return os.getxattr(self.path(name), key, follow_symlinks=follow)

    def listxattr(self, name: str, follow: bool) -> list[str]:
        """For a user without trusted ones, whose names FUSE does not hide as other file systems do."""
        found = sorted(os.listxattr(self.path(name), follow_symlinks=follow))
        return [key for key in found if os.geteuid() == 0 or not key.startswith("trusted.")]

    def removexattr(self, name: str, key: str, follow: bool) -> None:
        os.removexattr(self.path(name), key, follow_symlinks=follow)

    # ---- open files

    def open(self, slot: int, name: str, flags: int, mode: int) -> object:
        fd = os.open(self.path(name), flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        self.close(slot)
        self.fds[slot] = fd
        return self.fstat(slot)

    def close(self, slot: int) -> None:
        if self.fds[slot] >= 0:
            os.close(self.fds[slot])
        self.fds[slot] = -1

    def fstat(self, slot: int) -> object:
        return shown(os.fstat(self.fds[slot]))

    def write(self, slot: int, data: bytes, offset: int) -> int:
        return os.pwrite(self.fds[slot], data, offset)

    def read(self, slot: int, size: int, offset: int) -> bytes:
        return os.pread(self.fds[slot], size, offset)

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.fds[slot], size)

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.fds[slot], mode)

    def fsync(self, slot: int, data_only: bool) -> None:
        (os.fdatasync if data_only else os.fsync)(self.fds[slot])

    def seek(self, slot: int, offset: int, whence: int) -> int:
        """Not to the end of a directory, which ext4 alone says is at the greatest hash."""
        is_directory = stat.S_ISDIR(os.fstat(self.fds[slot]).st_mode)
        return os.lseek(self.fds[slot], offset, os.SEEK_SET if is_directory else whence)

    def fallocate(self, slot: int, mode: int, offset: int, size: int) -> None:
        called(_libc.fallocate(self.fds[slot], mode, ctypes.c_long(offset), ctypes.c_long(size)))

    def copy_range(self, slot: int, to: int, size: int, offset: int, to_offset: int) -> int:
        return os.copy_file_range(self.fds[slot], self.fds[to], size, offset, to_offset)

    def map(self, slot: int, data: bytes) -> bytes:
        size = min(os.fstat(self.fds[slot]).st_size, 1 << 16)
        with mmap.mmap(self.fds[slot], size) as memory:
            part = data[:size]
            memory[: len(part)] = part
            memory.flush()
            return memory[:]

    def temporary(self, slot: int, name: str, to: str, flags: int) -> None:
        self.open(slot, name, os.O_TMPFILE | os.O_RDWR | flags, 0o640)
        os.write(self.fds[slot], b"temporary")
        self._link(f"/proc/self/fd/{self.fds[slot]}", to, True)


class Random:
    """Random operations, except those ``without``. ``look`` looks at what there is, so that most names suit."""

    def __init__(self, seed: int, without: Sequence[str] = ()) -> None:
        self._rng = random.Random(seed)
        self._weights = {name: weight for name, (weight, *_) in OPERATIONS.items() if name not in without}
        self._names: dict[str, list[str]] = {}

    def look(self, tree: Tree) -> None:
        """Learn the names of the tree."""
        self._names = {"directory": ["top"], "link": [], "file": []}
        for where, directories, files in os.walk(tree.path("top")):
            for name in sorted([*directories, *files]):
                path = f"{where}/{name}"
                kind = "link" if os.path.islink(path) else "directory" if os.path.isdir(path) else "file"
                self._names[kind].append(path.removeprefix(tree.path("")))

    def operation(self) -> tuple[str, tuple[Any, ...]]:
        """A method of Tree, and its arguments."""
        (method,) = self._rng.choices(list(self._weights), list(self._weights.values()))
        return method, tuple(argument(self) for argument in OPERATIONS[method][1:])

    def choose(self, *of: Any) -> Any:
        return self._rng.choice(of)

    def name(self) -> str:
        return "/".join(["top", *self._rng.choices("abcdef", k=self._rng.choice([1, 1, 2, 2, 3]))])

    def known(self, *kinds: str) -> str:
        """A name that exists, most of the time, and mostly of such a kind; but not the top."""
        names = [name for kind in kinds for name in self._names[kind] if name != "top"]
        return self._rng.choice(names) if names and self._rng.random() < 0.85 else self.name()

    def fresh(self) -> str:
        """A name in a directory that exists, most of the time."""
        directory = self._rng.choice(self._names["directory"])
        return f"{directory}/{self._rng.choice('abcdef')}" if self._rng.random() < 0.85 else self.name()

    def mode(self) -> int:
        modes = [0o644, 0o755, 0o600, 0o777, 0o4755, 0o2775, 0o2755, 0o1777, 0o000]
        return self._rng.choice(modes)

    def data(self) -> bytes:
        return self._rng.randbytes(self._rng.choice([0, 1, 100, 4095, 4096, 4097, 70_000]))

    def flags(self) -> int:
        how = self._rng.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
        more = [0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC]
        return how | self._rng.choice(more) | self._rng.choice([0, 0, 0, os.O_APPEND, os.O_NOFOLLOW, os.O_SYNC])


def choice(*of: Any) -> Callable[[Random], Any]:
    """One of these values, or of what these functions give."""

    def chosen(r: Random) -> Any:
        found = r.choose(*of)
        return found(r) if callable(found) else found

    return chosen


def known(*kinds: str) -> Callable[[Random], Any]:
    return lambda r: r.known(*kinds)


FRESH, MODE, DATA, FLAGS = Random.fresh, Random.mode, Random.data, Random.flags
NAME, FILE, LINK, DIRECTORY = known("file", "link", "directory"), known("file"), known("link"), known("directory")
SLOT, FOLLOW, ID = choice(*range(SLOTS)), choice(True, False), choice(-1, 0, 1000, 2000, 3000)
SIZE = choice(0, 1, 100, 4096, 8192, 10_000, 65_536, 200_000)
KEY = choice("user.a", "user.a", "trusted.b", "trusted.b", "security.c", "nothing.d", "system.posix_acl_access")
TIME = choice(0, 1, 10**9, 1_234_567_890_123_456_789, 2**33 * 10**9)
MOVE = choice(0, 0, 0, NOREPLACE, EXCHANGE, EXCHANGE, NOREPLACE | EXCHANGE, WHITEOUT)
VALUE, REPLACING = choice(b"", b"value", b"v" * 2000), choice(0, os.XATTR_CREATE, os.XATTR_REPLACE)
KIND = choice(stat.S_IFIFO | 0o644, stat.S_IFIFO | 0o600, stat.S_IFREG | 0o640, stat.S_IFSOCK | 0o700)

# method of Tree: how often, and its arguments
OPERATIONS: dict[str, tuple[Any, ...]] = {
    "stat": (6, NAME, FOLLOW),
    "listing": (4, DIRECTORY),
    "mkdir": (8, FRESH, MODE),
    "rmdir": (6, DIRECTORY),
    "unlink": (8, known("file", "link")),
    "rename": (12, NAME, choice(FRESH, NAME), MOVE),
    "link": (6, FILE, FRESH, FOLLOW),
    "symlink": (4, choice("a", "b", "c/d", "../a", "./b/../c", "nothing", "x" * 300), FRESH),
    "readlink": (3, LINK),
    "mknod": (3, FRESH, KIND, choice(0)),
    "bind": (1, FRESH),
    "chmod": (5, NAME, MODE),
    "chown": (4, NAME, ID, ID, FOLLOW),
    "utime": (3, NAME, TIME, TIME, FOLLOW),
    "touch": (1, NAME),
    "truncate": (3, FILE, SIZE),
    "access": (3, NAME, choice(os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK)),
    "setxattr": (8, NAME, KEY, VALUE, REPLACING, FOLLOW),
    "getxattr": (6, NAME, KEY, FOLLOW),
    "listxattr": (2, NAME, FOLLOW),
    "removexattr": (4, NAME, KEY, FOLLOW),
    "open": (20, SLOT, choice(FILE, FILE, FRESH), FLAGS, MODE),
    "close": (2, SLOT),
    "fstat": (4, SLOT),
    "write": (16, SLOT, DATA, SIZE),
    "read": (12, SLOT, SIZE, SIZE),
    "ftruncate": (3, SLOT, SIZE),
    "fchmod": (1, SLOT, MODE),
    "fsync": (1, SLOT, FOLLOW),
    "seek": (4, SLOT, SIZE, choice(os.SEEK_SET, os.SEEK_END)),
    "fallocate": (4, SLOT, choice(0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE, PUNCH_HOLE), SIZE, SIZE),
    "copy_range": (3, SLOT, SLOT, SIZE, SIZE, SIZE),
    "map": (5, SLOT, DATA),
    "temporary": (3, SLOT, DIRECTORY, FRESH, choice(0, os.O_EXCL)),
}


def outcome(tree: Tree, method: str, arguments: tuple[Any, ...]) -> object:
    """The result of an operation, or the name of its error."""
    try:
        return getattr(tree, method)(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, error.errno)
    except ValueError as error:  # mmap of nothing
        return str(error)


def compare(one: Tree, other: Tree, choose: Random, count: int) -> Counter[str]:
    """Does the same in both trees; which methods have succeeded how often."""
    succeeded: Counter[str] = Counter()
    history: list[str] = []
    for i in range(count):
        if i % 5 == 0:
            choose.look(other)
        method, arguments = choose.operation()
        results = [outcome(tree, method, arguments) for tree in (one, other)]
        history.append(f"{method}{arguments!r:.200}: {results[0]!r:.200}")
        assert results[0] == results[1], "\n".join([*history[-30:], f"and the other: {results[1]!r:.200}"])
        succeeded[method] += not (isinstance(results[0], str) and results[0].startswith("E"))
    return succeeded


def in_children(*functions: Function, uid: int = 0, groups: Sequence[int] = (0,), umask: int = 0o022) -> None:
    """Calls each in a child process, all at once: of a user, with supplementary groups if there are several."""
    pids = []
    for function in functions:
        pids.append(os.fork())
        if pids[-1] == 0:
            _child(function, uid, groups, umask)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def _child(function: Function, uid: int, groups: Sequence[int], umask: int) -> None:
    status = 1
    try:
        os.setgroups(groups[1:])
        os.setresgid(groups[0], groups[0], groups[0])
        os.setresuid(uid, uid, uid)
        os.umask(umask)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)

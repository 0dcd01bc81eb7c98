"""A directory that no path leads out of, and what is done to the entries in it.

Theory of operation. A path is resolved by the kernel with openat2(RESOLVE_IN_ROOT): ``..`` and absolute links on
its way end inside, as if the directory were the root. Only the directory that an entry is in is found this way; the
entry itself is named by its last component alone, with calls that do not follow a link (mkdirat, linkat, O_EXCL ...).
Mount points are not crossed. Mode, owner and time of directories are given at the end, since putting something in
a directory changes its time, and a mode may forbid it to an ordinary user; they are remembered by inode, so that
a directory which another member has replaced meanwhile is not mistaken for it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from minicontainer.native import lib
from minicontainer.rootfs.removal import open_inside, remove

IN_ROOT = lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS | lib.RESOLVE_NO_XDEV
PLACE = lib.O_PATH | os.O_DIRECTORY
OVERHEAD = 256  # bytes of what is remembered of a directory, beside its names and attributes

Dress = Callable[[int], None]  # gives a directory (a descriptor) its mode, owner and time


class Tree:
    """The entries of the directory ``root`` (a descriptor, which stays the caller's)."""

    def __init__(self, root: int, made: Callable[[], None]) -> None:
        """``made`` is told of every directory that is made on the way to something else."""
        self._root, self._made = root, made
        self._base = os.readlink(_link(root))
        self.remembered = 0  # bytes, about
        self._pending: dict[tuple[int, int], tuple[str, Dress]] = {}

    def directory(self, parts: Sequence[bytes]) -> int:
        """A descriptor (O_PATH) of an existing directory, links on the way resolved inside."""
        return open_inside(self._root, os.fsdecode(b"/".join(parts)) or ".", PLACE, IN_ROOT)

    def needed(self, parts: Sequence[bytes], dress: Dress) -> int:
        """As ``directory``, but what is missing is made, and given its looks by ``dress``."""
        try:
            return self.directory(parts)
        except FileNotFoundError:
            there, missing = self._longest(parts)
        for part in missing:
            try:
                name = os.fsdecode(part)
                self._made()
                os.mkdir(name, 0o700, dir_fd=there)  # FileExistsError: a link to nothing is there
                self.later(there, name, dress)
                below = open_inside(there, name, PLACE)
            finally:
                os.close(there)
            there = below
        return there

    def _longest(self, parts: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        """The deepest directory on the way to ``parts`` that exists, and the components below it."""
        there = self.directory(())
        for i in range(1, len(parts) + 1):
            try:
                deeper = self.directory(parts[:i])
            except FileNotFoundError:
                return there, parts[i - 1 :]
            except BaseException:
                os.close(there)
                raise
            os.close(there)
            there = deeper
        return there, ()

    def later(self, parent: int, name: str, dress: Dress) -> None:
        """Has ``dress`` done to a directory when all is in its place."""
        fd = open_inside(parent, name, PLACE)
        try:
            path, seen = os.readlink(_link(fd)), os.fstat(fd)
        finally:
            os.close(fd)
        self.remembered += len(path) + OVERHEAD
        self._pending[(seen.st_dev, seen.st_ino)] = (os.path.relpath(path, self._base), dress)

    def finish(self) -> None:
        """Gives the directories their looks, the deepest first; those that were replaced have gone."""
        for inode, (path, dress) in sorted(self._pending.items(), key=lambda item: _depth(item[1][0]), reverse=True):
            try:
                fd = open_inside(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                seen = os.fstat(fd)
                if (seen.st_dev, seen.st_ino) == inode:
                    dress(fd)
            finally:
                os.close(fd)


def clear(parent: int, name: str) -> None:
    """Takes away whatever has this name; the link itself, if it is one."""
    try:
        remove(parent, name)
    except FileNotFoundError:
        pass


def _depth(path: str) -> int:
    return 0 if path == "." else 1 + path.count("/")


def _link(fd: int) -> str:
    return f"/proc/self/fd/{fd}"

"""Operations on the entries of a directory, whose paths cannot lead out of it.

Theory of operation. The kernel resolves each path with openat2(RESOLVE_IN_ROOT): ``..`` and absolute links end inside,
as if the directory were the root. Only the parent directory of an entry is resolved this way; the entry itself is named
by its last component, in calls that do not follow links (mkdirat, linkat, O_EXCL ...). Mount points are not crossed.
Mode, owner and time of directories are set at the end, because creating an entry changes a directory's time, and a mode
may forbid it to an ordinary user. They are stored by inode, so a directory that another member has replaced meanwhile
does not get them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from minicontainer.native import lib
from minicontainer.rootfs.removal import open_inside, remove

IN_ROOT = lib.RESOLVE_IN_ROOT | lib.RESOLVE_NO_MAGICLINKS | lib.RESOLVE_NO_XDEV
PLACE = lib.O_PATH | os.O_DIRECTORY
OVERHEAD = 256  # bytes stored per directory, besides its names and attributes

SetAttributes = Callable[[int], None]  # sets mode, owner and time of a directory (a descriptor)


class Tree:
    """The entries of the directory ``root`` (a descriptor, which stays the caller's)."""

    def __init__(self, root: int, made: Callable[[], None]) -> None:
        """``made`` is called for every parent directory that is created."""
        self._root, self._made = root, made
        self._base = os.readlink(_link(root))
        self.stored = 0  # bytes of pending attributes, approximately
        self._pending: dict[tuple[int, int], tuple[str, SetAttributes]] = {}

    def directory(self, parts: Sequence[bytes]) -> int:
        """A descriptor (O_PATH) of an existing directory, with links resolved inside."""
        return open_inside(self._root, os.fsdecode(b"/".join(parts)) or ".", PLACE, IN_ROOT)

    def needed(self, parts: Sequence[bytes], set_attributes: SetAttributes) -> int:
        """As ``directory``, but create what is missing, with the attributes that ``set_attributes`` sets."""
        try:
            return self.directory(parts)
        except FileNotFoundError:
            there, missing = self._longest(parts)
        for part in missing:
            try:
                name = os.fsdecode(part)
                self._made()
                os.mkdir(name, 0o700, dir_fd=there)  # FileExistsError: a dangling link
                self.later(there, name, set_attributes)
                below = open_inside(there, name, PLACE)
            finally:
                os.close(there)
            there = below
        return there

    def _longest(self, parts: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        """The deepest existing directory of the path ``parts``, and the missing components."""
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

    def later(self, parent: int, name: str, set_attributes: SetAttributes) -> None:
        """Call ``set_attributes`` for a directory at the end."""
        fd = open_inside(parent, name, PLACE)
        try:
            path, seen = os.readlink(_link(fd)), os.fstat(fd)
        finally:
            os.close(fd)
        self.stored += len(path) + OVERHEAD
        self._pending[(seen.st_dev, seen.st_ino)] = (os.path.relpath(path, self._base), set_attributes)

    def finish(self) -> None:
        """Set the attributes of the directories, the deepest first; replaced directories are skipped."""
        for inode, (path, set_attributes) in sorted(
            self._pending.items(), key=lambda item: _depth(item[1][0]), reverse=True
        ):
            try:
                fd = open_inside(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                seen = os.fstat(fd)
                if (seen.st_dev, seen.st_ino) == inode:
                    set_attributes(fd)
            finally:
                os.close(fd)


def clear(parent: int, name: str) -> None:
    """Remove the entry ``name``; of a link, the link itself."""
    try:
        remove(parent, name)
    except FileNotFoundError:
        pass


def _depth(path: str) -> int:
    return 0 if path == "." else 1 + path.count("/")


def _link(fd: int) -> str:
    return f"/proc/self/fd/{fd}"

"""Unpacks an untrusted tar archive: no member can write outside the directory.

Theory of operation. ``archive`` yields validated members, ``tree`` finds the directory of each, and this module creates
the member there, with the semantics of an image layer:

- A later member replaces an earlier one, and existing files: a link or a file is replaced, never written through (other
  hard links keep their content). A directory stays under a member that is a directory, and is removed with its contents
  under any other member.
- A symbolic link may have any target. In the path of a member it is followed, resolved inside the directory.
- A hard link refers to a file in the directory; a symbolic link as its last component is not followed.
- As root, files get the archive's numeric owners. Set-id bits of files, file capabilities and device nodes are left
  out, because any user of this host could use them; a container does not use them (nosuid, nodev). With ``keep_suid``
  they are unpacked, below a directory that other users cannot enter. An ordinary user owns all files, without any of
  these.
- Modes are the archive's, regardless of the umask. Directories without a member have mode 0755. Times are preserved.
- The extended attributes ``user.*`` and ``security.capability`` are unpacked, except those that control an overlay.

Whatever is left out is in the report. Whiteouts (``.wh.``) are ordinary files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from minicontainer.errors import SpecError, StepError, sentence
from minicontainer.native import lib
from minicontainer.rootfs import archive as a
from minicontainer.rootfs.staging import MODE, filled, made, open_existing
from minicontainer.rootfs.stream import CHUNK, HEADER, ArchiveError, Readable, open_archive
from minicontainer.rootfs.tree import OVERHEAD, Tree, clear

SIZE = 16 << 30  # bytes, holes of sparse files counted
MEMBERS = 1_000_000
MEMORY = 512 << 20  # bytes stored until the end: attributes of directories, notes
SET_ID = stat.S_ISUID | stat.S_ISGID
CAPABILITY = "security.capability"
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
REASONS = {
    errno.EEXIST: "its path has a dangling symbolic link",
    errno.ELOOP: "its path has too many symbolic links, or a loop of them",
    errno.ENOTDIR: "a component of its path is not a directory",
    errno.EXDEV: "its path crosses a mount point",
    errno.EINVAL: "the file system or the user namespace does not support its owner, time or name",
}


@dataclass(frozen=True)
class Note:
    """A deviation from the archive: the member's name and a sentence."""

    member: str
    what: str

    def __str__(self) -> str:
        return sentence("member", self.member, self.what)


@dataclass(frozen=True)
class Report:
    """What was unpacked: members, bytes of files (holes counted), and what was left out."""

    members: int
    size: int
    notes: tuple[Note, ...]


def tar(
    file: str | os.PathLike[str] | Readable,
    directory: str | os.PathLike[str],
    *,
    limit: int = SIZE,
    members: int = MEMBERS,
    keep_suid: bool = False,
) -> Report:
    """Unpack an archive (a path or a binary file object; plain, gzip, bzip2, xz, and zstd since Python 3.14).

    A missing ``directory`` is created completely or not at all. An empty one is empty again after a failure; members
    are added to any other. ``limit``: maximum bytes of unpacked files; ``members``: maximum number of entries.
    ``keep_suid``: as root, unpack set-id bits of files, file capabilities and devices too; SpecError if any user of
    this host could reach them. ArchiveError names the archive or the member, and the error."""
    target = os.fspath(directory)
    with ExitStack() as stack:
        existing = open_existing(target)
        if existing is not None:
            stack.callback(os.close, existing)
        if keep_suid and os.geteuid() == 0 and open_to_all(target):
            reason = "every user of this host could enter it and execute its set-uid programs"
            raise SpecError("DIR", target, reason, "choose a DIR below a directory of mode 0700")
        source = stack.enter_context(open_archive(file)) if isinstance(file, (str, os.PathLike)) else file
        root = stack.enter_context(made(target) if existing is None else filled(existing))
        extraction = Extraction(root, a.Archive(source), limit, members, keep_suid=keep_suid)
        if existing is None:
            extraction.tree.later(root, ".", plain_directory)
        try:
            return extraction.run()
        except ArchiveError as e:
            e.archive = os.fspath(file) if isinstance(file, (str, os.PathLike)) else None
            raise


def open_to_all(path: str) -> bool:
    """Whether other users can reach ``path``, existing or not: every directory in it is searchable for them."""
    place, directories = os.path.realpath(path), ["/"]
    while place != "/":
        directories.append(place)
        place = os.path.dirname(place)
    return all(os.stat(directory).st_mode & stat.S_IXOTH for directory in directories if os.path.isdir(directory))


def plain_directory(fd: int) -> None:
    """Set the mode of a directory without a member: 0755."""
    os.fchmod(fd, MODE)


class Extraction:
    """The extraction of one archive into one directory."""

    def __init__(self, root: int, archive: a.Archive, limit: int, members: int, *, keep_suid: bool = False) -> None:
        self._keep_suid = keep_suid
        self.tree = Tree(root, self._made)
        self._root, self._archive = root, archive
        self._limit, self._entries = limit, members
        self._members = self._size = self._made_entries = 0
        self._notes: list[Note] = []
        self._stored = 0
        self._put: dict[str, Callable[[int, str, a.Member], None]] = {
            a.FILE: self._file,
            a.DIRECTORY: self._directory,
            a.SYMLINK: self._symlink,
            a.HARD_LINK: self._hard_link,
            a.CHARACTER: self._device,
            a.BLOCK_DEVICE: self._device,
            a.FIFO: self._device,
        }

    def run(self) -> Report:
        for member in self._archive:
            self._count(member)
            try:
                self._extract(member)
            except OSError as e:
                raise member.error(_reason(e)) from None
            if self._stored + self.tree.stored > MEMORY:
                raise member.error(
                    f"names and attributes of directories, and what is left out, exceed {MEMORY >> 20} MiB"
                )
        try:
            self.tree.finish()
        except OSError as e:
            raise ArchiveError(f"giving a directory its mode, owner and time: {_reason(e)}") from None
        return Report(self._members, self._size, tuple(self._notes))

    def _count(self, member: a.Member) -> None:
        """Check the limits from the header, before anything is written."""
        self._members += 1
        self._size += member.size
        self._made()
        if self._archive.headers > self._limit + HEADER:
            raise ArchiveError(f"its headers are more than the limit of {self._limit} bytes (--max-size)")
        if self._size > self._limit:
            raise member.error(
                f"with it, the archive unpacks to more than the limit of {self._limit} bytes (--max-size)"
            )

    def _made(self) -> None:
        self._made_entries += 1
        if self._made_entries > self._entries:
            raise ArchiveError(f"unpacks to more than the limit of {self._entries} entries (--max-members)")

    def _note(self, member: a.Member, what: str) -> None:
        self._stored += len(member.shown) + len(what) + OVERHEAD
        self._notes.append(Note(member.shown, what))

    def _extract(self, member: a.Member) -> None:
        if member.kind == a.UNKNOWN:
            self._note(member, f"skipped: its type {member.type!r} is unknown")
        elif member.parts:
            parent = self.tree.needed(member.parts[:-1], plain_directory)
            try:
                self._put[member.kind](parent, os.fsdecode(member.parts[-1]), member)
            finally:
                os.close(parent)
        elif member.kind == a.DIRECTORY:
            self.tree.later(self._root, ".", lambda fd: self._set_attributes(fd, member))
        else:
            raise member.error(f"a {member.kind} cannot be the root")

    # ---- the kinds of members; each method creates one as ``name`` in the directory ``parent``

    def _file(self, parent: int, name: str, member: a.Member) -> None:
        clear(parent, name)
        fd = os.open(name, CREATE, 0o600, dir_fd=parent)
        try:
            for offset, size in member.extents:
                os.lseek(fd, offset, os.SEEK_SET)
                self._copy(fd, size)
            os.ftruncate(fd, member.size)
            self._set_attributes(fd, member)
        finally:
            os.close(fd)

    def _copy(self, fd: int, size: int) -> None:
        while size > 0:
            data = self._archive.contents(min(size, CHUNK))
            size -= len(data)
            while data:
                data = data[os.write(fd, data) :]

    def _directory(self, parent: int, name: str, member: a.Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._stored += len(member.shown) + sum(len(value) for _, value in member.xattrs)
        self.tree.later(parent, name, lambda fd: self._set_attributes(fd, member))

    def _symlink(self, parent: int, name: str, member: a.Member) -> None:
        clear(parent, name)
        os.symlink(os.fsdecode(member.target), name, dir_fd=parent)
        if os.geteuid() == 0:
            os.chown(name, *member.owner, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
        if member.xattrs:
            self._note(member, "its extended attributes are left out: it is a symbolic link")

    def _hard_link(self, parent: int, name: str, member: a.Member) -> None:
        shown = os.fsdecode(b"/".join(member.linked))
        if not member.linked:
            raise member.error("a hard link to the root")
        try:
            source = self.tree.directory(member.linked[:-1])
        except FileNotFoundError:
            raise member.error(f"a hard link to {shown!r}, which does not exist") from None
        try:
            self._link(source, os.fsdecode(member.linked[-1]), parent, name)
        except FileNotFoundError:
            raise member.error(f"a hard link to {shown!r}, which does not exist") from None
        except IsADirectoryError:
            raise member.error(f"a hard link to {shown!r}, which is a directory") from None
        finally:
            os.close(source)

    def _link(self, source: int, other: str, parent: int, name: str) -> None:
        there = os.stat(other, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            if os.path.samestat(there, os.stat(name, dir_fd=parent, follow_symlinks=False)):
                return  # to itself, or made before
        except FileNotFoundError:
            pass
        clear(parent, name)
        os.link(other, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _device(self, parent: int, name: str, member: a.Member) -> None:
        clear(parent, name)
        if member.kind != a.FIFO and os.geteuid() == 0 and not self._keep_suid:
            self._note(member, f"skipped: a {member.kind}, which a container does not use")
            return
        kind = {a.CHARACTER: stat.S_IFCHR, a.BLOCK_DEVICE: stat.S_IFBLK, a.FIFO: stat.S_IFIFO}[member.kind]
        try:
            os.mknod(name, kind | 0o600, os.makedev(*member.device), dir_fd=parent)
        except PermissionError as e:
            if e.errno != errno.EPERM or member.kind == a.FIFO:
                raise
            self._note(member, f"skipped: to make a {member.kind} needs the privilege CAP_MKNOD")
            return
        fd = os.open(name, lib.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        try:
            self._set_attributes(f"/proc/self/fd/{fd}", member)
        finally:
            os.close(fd)

    # ---- attributes

    def _set_attributes(self, what: int | str, member: a.Member) -> None:
        """Set owner, mode, attributes and times, in this order: chown(2) clears set-id bits and capabilities."""
        mode = member.mode
        if os.geteuid() == 0:
            os.chown(what, *member.owner)
            if mode & SET_ID and not self._keep_suid and member.kind != a.DIRECTORY:
                mode &= ~SET_ID
                self._note(
                    member,
                    "its set-id bits are left out: a container does not use them, other users of this host could",
                )
        elif mode & SET_ID:
            mode &= ~SET_ID
            self._note(member, "its set-id bits are left out: it belongs to an ordinary user here")
        os.chmod(what, mode)
        for name, value in member.xattrs:
            self._set_xattr(what, name, value, member)
        os.utime(what, ns=(member.mtime, member.mtime))

    def _set_xattr(self, what: int | str, name: str, value: bytes, member: a.Member) -> None:
        if not (name == CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))):
            self._note(member, f"its extended attribute {name} is left out")
            return
        if name == CAPABILITY and os.geteuid() == 0 and not self._keep_suid:
            self._note(
                member, "its capabilities are left out: a container does not use them, other users of this host could"
            )
            return
        try:
            os.setxattr(what, name, value)
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL):
                raise
            self._note(member, f"its extended attribute {name} is left out: {os.strerror(e.errno)}")


def _reason(error: OSError) -> str:
    """The reason of an error in terms of the archive, where the errno's text would be misleading; with a hint."""
    if isinstance(error, StepError) and error.hint:
        return str(error)
    return REASONS.get(error.errno or 0) or os.strerror(error.errno or errno.EIO)

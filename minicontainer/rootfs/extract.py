"""Unpacks a tar archive that may have been made to do harm: no member leaves the directory, whatever it says.

Theory of operation. ``archive`` gives checked members, ``tree`` finds the directory that each belongs in, and here it
is put there, with the meaning that the members of an image's layer have:

- A later member replaces an earlier one, and what was in the directory before: a link is replaced and not written
  through, and so is a file (other hard links to it keep what they hold). Only a directory stays what it is under a
  member that is a directory, too; under another member it goes, with all it holds.
- A symbolic link holds any text: it is data. On the way to a member it is followed, but inside the directory.
- A hard link is made to what is in the directory, and not through a link as its last component.
- Root gives the archive's numeric owners. What would do its owner's work for any user of this host is left out: set-id
  bits of files, capabilities, device nodes; a container uses none of them (nosuid, nodev). They are kept where that is
  asked for, below a directory that others cannot enter. An ordinary user owns everything, without any of these.
- Modes are the archive's, whatever the umask. Directories that no member describes have 0755. Times are kept.
- Of the extended attributes ``user.*`` and ``security.capability`` are kept; those steer an overlay are not.

What is left out is in the report. Whiteouts (``.wh.``) are files like others.
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
MEMORY = 512 << 20  # bytes that may be remembered to the end: the looks of directories, what is left out
SET_ID = stat.S_ISUID | stat.S_ISGID
CAPABILITY = "security.capability"
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
REASONS = {
    errno.EEXIST: "its way leads over a symbolic link to nothing",
    errno.ELOOP: "its way leads over too many symbolic links, or over a loop of them",
    errno.ENOTDIR: "what should be a directory on its way is something else",
    errno.EXDEV: "its way leads over a mount point",
    errno.EINVAL: "the file system, or the user namespace, cannot take its owner, time or name",
}


@dataclass(frozen=True)
class Note:
    """What was not done as the archive has it: the member's name and a sentence."""

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
    """Unpacks an archive (a path or a binary file object; plain, gzip, bzip2, xz, and zstd since Python 3.14).

    ``directory`` is made if need be: then it is there, whole, or not at all. One that is empty is empty again after a
    failure; one that holds something is added to. ``limit`` is of the bytes that it unpacks to, ``members`` of the
    entries that are made. ``keep_suid``: as root, set-id bits of files, capabilities and devices are the archive's too;
    SpecError where every user of this host could reach them. ArchiveError: the archive, or a member (by name), or what
    the file system said to it."""
    target = os.fspath(directory)
    with ExitStack() as stack:
        existing = open_existing(target)
        if existing is not None:
            stack.callback(os.close, existing)
        if keep_suid and os.geteuid() == 0 and open_to_all(target):
            reason = "every user of this host can enter it, and execute what the archive has set-uid"
            raise SpecError("DIR", target, reason, "take one below a directory of mode 0700")
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
    """Whether other users can walk to what is, or will be, at ``path``: no directory on the way keeps them out."""
    place, way = os.path.realpath(path), ["/"]
    while place != "/":
        way.append(place)
        place = os.path.dirname(place)
    return all(os.stat(directory).st_mode & stat.S_IXOTH for directory in way if os.path.isdir(directory))


def plain_directory(fd: int) -> None:
    """The looks of a directory that no member describes: ours, mode 0755."""
    os.fchmod(fd, MODE)


class Extraction:
    """One archive on its way into one directory."""

    def __init__(self, root: int, archive: a.Archive, limit: int, members: int, *, keep_suid: bool = False) -> None:
        self._keep_suid = keep_suid
        self.tree = Tree(root, self._made)
        self._root, self._archive = root, archive
        self._limit, self._entries = limit, members
        self._members = self._size = self._made_entries = 0
        self._notes: list[Note] = []
        self._remembered = 0
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
            if self._remembered + self.tree.remembered > MEMORY:
                raise member.error(
                    f"names and attributes of directories, and what is left out, exceed {MEMORY >> 20} MiB"
                )
        try:
            self.tree.finish()
        except OSError as e:
            raise ArchiveError(f"giving a directory its mode, owner and time: {_reason(e)}") from None
        return Report(self._members, self._size, tuple(self._notes))

    def _count(self, member: a.Member) -> None:
        """Limits are checked on what a header says, before anything is written."""
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
        self._remembered += len(member.shown) + len(what) + OVERHEAD
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
            self.tree.later(self._root, ".", lambda fd: self._dress(fd, member))
        else:
            raise member.error(f"a {member.kind} cannot be the root")

    # ---- the kinds of members; each puts one at ``name`` of the directory ``parent``

    def _file(self, parent: int, name: str, member: a.Member) -> None:
        clear(parent, name)
        fd = os.open(name, CREATE, 0o600, dir_fd=parent)
        try:
            for offset, size in member.extents:
                os.lseek(fd, offset, os.SEEK_SET)
                self._copy(fd, size)
            os.ftruncate(fd, member.size)
            self._dress(fd, member)
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
        self._remembered += len(member.shown) + sum(len(value) for _, value in member.xattrs)
        self.tree.later(parent, name, lambda fd: self._dress(fd, member))

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
            raise member.error(f"a hard link to {shown!r}, which is not there") from None
        try:
            self._link(source, os.fsdecode(member.linked[-1]), parent, name)
        except FileNotFoundError:
            raise member.error(f"a hard link to {shown!r}, which is not there") from None
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
            self._dress(f"/proc/self/fd/{fd}", member)
        finally:
            os.close(fd)

    # ---- looks

    def _dress(self, what: int | str, member: a.Member) -> None:
        """Gives it owner, mode, attributes, times, in this order: a new owner takes away bits and capabilities."""
        mode = member.mode
        if os.geteuid() == 0:
            os.chown(what, *member.owner)
            if mode & SET_ID and not self._keep_suid and member.kind != a.DIRECTORY:
                mode &= ~SET_ID
                self._note(
                    member, "its set-id bits are left out: a container does not use them, others of this host could"
                )
        elif mode & SET_ID:
            mode &= ~SET_ID
            self._note(member, "its set-id bits are left out: it belongs to an ordinary user here")
        os.chmod(what, mode)
        for name, value in member.xattrs:
            self._set_attribute(what, name, value, member)
        os.utime(what, ns=(member.mtime, member.mtime))

    def _set_attribute(self, what: int | str, name: str, value: bytes, member: a.Member) -> None:
        if not (name == CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))):
            self._note(member, f"its extended attribute {name} is left out")
            return
        if name == CAPABILITY and os.geteuid() == 0 and not self._keep_suid:
            self._note(
                member, "its capabilities are left out: a container does not use them, others of this host could"
            )
            return
        try:
            os.setxattr(what, name, value)
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL):
                raise
            self._note(member, f"its extended attribute {name} is left out: {os.strerror(e.errno)}")


def _reason(error: OSError) -> str:
    """In words of the archive, where those of errno would be about something else; what can be done about it."""
    if isinstance(error, StepError) and error.hint:
        return str(error)
    return REASONS.get(error.errno or 0) or os.strerror(error.errno or errno.EIO)

"""The members of a tar archive, validated: malformed headers are refused here.

Python's tarfile parses the headers (ustar, PAX, GNU; sparse files of all kinds), and never touches the file system.
Names are bytes, as in the kernel. A name is a list of components: empty ones and ``.`` are dropped, and so is a leading
``/`` or ``./``, as in GNU tar; ``..`` and NUL are refused. Sources: tar(5), pax(1), GNU tar's manual ("Basic Tar
Format", "Storing Sparse Files").
"""

from __future__ import annotations

import errno
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from minicontainer.native import lib
from minicontainer.rootfs.stream import BLOCK, ArchiveError, Readable, Stream

FILE, DIRECTORY, SYMLINK, HARD_LINK, CHARACTER, BLOCK_DEVICE, FIFO, UNKNOWN = (
    "file",
    "directory",
    "symbolic link",
    "hard link",
    "character device",
    "block device",
    "fifo",
    "unknown",
)
KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.GNUTYPE_SPARSE: FILE,
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: HARD_LINK,
    tarfile.CHRTYPE: CHARACTER,
    tarfile.BLKTYPE: BLOCK_DEVICE,
    tarfile.FIFOTYPE: FIFO,
}
XATTR = "SCHILY.xattr."  # a PAX keyword of star's, which GNU tar, libarchive and docker write too
MAJOR, MINOR, ID = 1 << 12, 1 << 20, (1 << 32) - 1  # bounds of the kernel's dev_t and uid_t
SECOND = 10**9
DECIMAL = re.compile(r"(-?)([0-9]{1,19})(?:\.([0-9]*))?")


@dataclass(frozen=True)
class Member:
    """One member. ``shown`` is its name for messages; ``size``: bytes of the unpacked file, holes included."""

    shown: str
    kind: str
    parts: tuple[bytes, ...]  # components of its name; none: the root itself
    mode: int  # permissions, set-id bits and sticky bit
    owner: tuple[int, int]
    mtime: int  # nanoseconds
    size: int
    extents: tuple[tuple[int, int], ...]  # (offset, bytes) of its data, in order; between them are holes
    target: bytes  # a symbolic link's text
    linked: tuple[bytes, ...]  # a hard link's other name
    device: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    type: str  # the type in the archive

    def error(self, reason: str) -> ArchiveError:
        return ArchiveError(reason, self.shown)


class Archive:
    """An iterator over the members; ``contents`` reads the data of the current one."""

    def __init__(self, file: Readable) -> None:
        self._stream = Stream(file)
        self._tar: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[Member]:
        while info := self._next():
            yield member_of(info)
            self._stream.next_member()
        if self._stream.last != bytes(BLOCK):
            damaged = len(self._stream.last) == BLOCK
            raise ArchiveError("is damaged: a header is wrong" if damaged else "is truncated")
        self._stream.drain()

    @property
    def headers(self) -> int:
        """Bytes of all headers read so far."""
        return self._stream.headers

    def contents(self, size: int) -> bytes:
        """The next ``size`` bytes of the member's data."""
        return self._stream.data(size)

    def _next(self) -> tarfile.TarInfo | None:
        try:
            if self._tar is None:
                self._tar = tarfile.TarFile(fileobj=self._stream, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
                if self._tar.firstmember is None:  # type: ignore[attr-defined]  # next() would read beyond the error
                    return None
            info = self._tar.next()
            self._tar.members.clear()  # type: ignore[attr-defined]  # tarfile would retain all members
        except ArchiveError:
            raise
        except (tarfile.TarError, ValueError, LookupError, ArithmeticError, TypeError) as e:
            raise ArchiveError(f"is no tar archive, or a damaged one: {e}") from None
        except RecursionError:
            raise ArchiveError("is damaged: too many headers of one member") from None
        return info


# ---- one member


def member_of(info: tarfile.TarInfo) -> Member:
    """The member of a parsed header. ArchiveError names the member and what is wrong with it."""
    kind = KINDS.get(info.type, UNKNOWN)
    if info.size < 0:
        raise _wrong(info, f"its size is {info.size}")
    return Member(
        shown=info.name,
        kind=kind,
        parts=_name(info, info.name, "its name"),
        mode=info.mode & 0o7777,
        owner=(_bounded(info, "user id", info.uid, ID), _bounded(info, "group id", info.gid, ID)),
        mtime=_mtime(info),
        size=info.size if kind in (FILE, UNKNOWN) else 0,
        extents=_extents(info) if kind == FILE else (),
        target=_target(info) if kind == SYMLINK else b"",
        linked=_name(info, info.linkname, "the name it links to") if kind == HARD_LINK else (),
        device=_device(info) if kind in (CHARACTER, BLOCK_DEVICE) else (0, 0),
        xattrs=tuple(_xattrs(info)),
        type=info.type.decode("latin-1"),
    )


def _wrong(info: tarfile.TarInfo, reason: str) -> ArchiveError:
    return ArchiveError(reason, info.name)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _name(info: tarfile.TarInfo, name: str, what: str) -> tuple[bytes, ...]:
    if "\0" in name:
        raise _wrong(info, f"{what} holds a NUL byte")
    if len(name) > lib.PATH_MAX:
        raise _wrong(info, f"{what}: {os.strerror(errno.ENAMETOOLONG)}")
    parts = tuple(part for part in _raw(name).split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        detail = "" if name == info.name else f", {name!r},"
        raise _wrong(info, f"{what}{detail} leads upwards (..)")
    return parts


def _target(info: tarfile.TarInfo) -> bytes:
    if not info.linkname or "\0" in info.linkname:
        raise _wrong(info, "the text of the symbolic link is empty, or holds a NUL byte")
    return _raw(info.linkname)


def _bounded(info: tarfile.TarInfo, what: str, number: int, bound: int) -> int:
    if not 0 <= number < bound:
        raise _wrong(info, f"its {what} {number} is not from 0 to {bound - 1}")
    return number


def _device(info: tarfile.TarInfo) -> tuple[int, int]:
    return _bounded(info, "major number", info.devmajor, MAJOR), _bounded(info, "minor number", info.devminor, MINOR)


def _mtime(info: tarfile.TarInfo) -> int:
    """Nanoseconds. PAX headers have a decimal fraction, which tarfile rounds to a float."""
    text = info.pax_headers.get("mtime", str(info.mtime))
    match = DECIMAL.fullmatch(text)
    if not match or int(match[2]) >= 1 << 63:
        raise _wrong(info, f"its time {text[:40]!r} is no number of seconds that the kernel supports")
    nanoseconds = int(match[2]) * SECOND + int((match[3] or "").ljust(9, "0")[:9])
    return -nanoseconds if match[1] else nanoseconds


def _extents(info: tarfile.TarInfo) -> tuple[tuple[int, int], ...]:
    """(offset, size) of the data: the whole file, or the parts of a sparse file that are no holes."""
    listed = getattr(info, "sparse", None)
    if listed is None:
        return ((0, info.size),) if info.size else ()
    end = 0
    extents = tuple((offset, size) for offset, size in listed if size)
    for offset, size in extents:
        if offset < end or size < 0 or offset + size > info.size:
            raise _wrong(info, "its map of a sparse file is damaged")
        end = offset + size
    return extents


def _xattrs(info: tarfile.TarInfo) -> Iterator[tuple[str, bytes]]:
    for keyword, value in info.pax_headers.items():
        if keyword.startswith(XATTR):
            if len(keyword) - len(XATTR) > lib.XATTR_NAME_MAX or len(value) > lib.XATTR_SIZE_MAX:
                raise _wrong(info, "an extended attribute is larger than the kernel supports (limits.h)")
            if "\0" in keyword:
                raise _wrong(info, "the name of an extended attribute holds a NUL byte")
            yield keyword.removeprefix(XATTR), _raw(value)

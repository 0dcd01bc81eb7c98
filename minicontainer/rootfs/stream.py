"""The bytes of an archive, decompressed, read once from its beginning to its end.

Theory of operation. tarfile parses headers out of a file object; ``Stream`` is that object. It only goes forward, so
that no header can lead back to what was read (a negative size would, for ever). What a header makes
tarfile read into memory counts against HEADER, and the end of the data is given once and is an error after that, so
that neither a bomb nor a loop in the parser can hold us. Whatever a decompressor says becomes an ArchiveError.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import IO, Any, Protocol, cast

from minicontainer.errors import Error, UnsupportedError, sentence

HEADER = 4 << 20  # bytes of headers that one member may have; Linux's names and attributes need a fraction of it
BLOCK = 512
CHUNK = 1 << 20
TRAILER = 64 << 20  # bytes after the end of the archive that are read, for a checksum that may follow
DIGITS = re.compile(rb"[0-9]{1000}")


class ArchiveError(Error):
    """What is wrong with an archive, or with one of its members, or why a member cannot be put in its place.

    ``member`` is its name, ``archive`` the path of the file; None: it is about none, or it has none."""

    def __init__(self, reason: str, member: str | None = None, archive: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.member, self.archive = reason, member, archive

    def __str__(self) -> str:
        if self.member is not None:
            return sentence("member", self.member, self.reason)
        return sentence("archive", self.archive, self.reason)


class Readable(Protocol):
    """Any binary file object: of a file, a pipe, a socket, of bytes."""

    def read(self, size: int, /) -> bytes: ...


class Stream:
    """A file object of the decompressed bytes, to be read forward only. Not the owner of ``file``."""

    def __init__(self, file: Readable) -> None:
        self._file = decompressed(file)
        self._position = 0
        self._allowance = HEADER
        self._ended = False
        self.headers = 0  # bytes of them
        self.last = b""  # what was read last: where tarfile stops, it tells why

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Forward to ``position``; what cannot be reached shows at the next read."""
        if position < self._position:
            raise ArchiveError("is damaged: a size leads back")
        while self._position < position and self._get(min(CHUNK, position - self._position)):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        """For headers: up to ``size`` bytes, within the allowance of the member."""
        self._allowance -= size
        if size < 0 or self._allowance < 0:
            raise ArchiveError(f"the headers of one member exceed the limit of {HEADER >> 20} MiB")
        self.last = self._exactly(size)
        self.headers += len(self.last)
        if not self.last and size:
            if self._ended:
                raise ArchiveError("is truncated")
            self._ended = True
        if size > BLOCK and DIGITS.search(self.last):
            # tarfile's search for hdrcharset takes quadratic time over digits (as in CVE-2024-6232)
            raise ArchiveError("a header holds a number of 1000 digits")
        return self.last

    def data(self, size: int) -> bytes:
        """For contents: exactly ``size`` bytes. ArchiveError if there are fewer."""
        got = self._exactly(size)
        if len(got) < size:
            raise ArchiveError("is truncated")
        return got

    def next_member(self) -> None:
        """The allowance of headers begins anew."""
        self._allowance = HEADER

    def drain(self) -> None:
        """Reads what follows the archive: padding, and the checksum of the compression, which is verified thereby."""
        end = self._position + TRAILER
        while self._position < end and self._get(CHUNK):
            pass

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size > 0 and (got := self._get(min(size, CHUNK))):
            parts.append(got)
            size -= len(got)
        return b"".join(parts)

    def _get(self, size: int) -> bytes:
        try:
            got = self._file.read(size)
        except Exception as e:
            raise _explained(e) from None
        self._position += len(got)
        return got


def _explained(error: Exception) -> Exception:
    """The ArchiveError of what a decompressor raised; other errors (of reading the file) are left as they are."""
    if isinstance(error, EOFError):
        return ArchiveError("is truncated: its compressed data ends early")
    foreign = isinstance(error, OSError) and error.errno is None
    if foreign or type(error).__module__ in ("zlib", "_lzma", "lzma") or "zstd" in type(error).__module__:
        return ArchiveError(f"its compressed data is damaged: {error}")
    return error


# ---- compression


def decompressed(file: Readable) -> IO[bytes]:
    """A file object of what ``file`` holds, whichever way it is compressed: told by its first bytes."""
    head = b""
    while len(head) < 6 and (more := file.read(6 - len(head))):
        head += more
    whole: Any = io.BufferedReader(_Rejoined(head, file), CHUNK)
    opened: IO[bytes] = whole
    if head.startswith(b"\x1f\x8b"):
        import gzip

        opened = cast("IO[bytes]", gzip.GzipFile(fileobj=whole, mode="rb"))
    elif head.startswith(b"BZh"):
        import bz2

        opened = bz2.BZ2File(whole)
    elif head.startswith(b"\xfd7zXZ\0"):
        import lzma

        opened = lzma.LZMAFile(whole)  # noqa: SIM115 - it owns nothing but memory
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        opened = _zstd(whole)
    return opened


def _zstd(whole: Any) -> Any:
    try:
        import importlib

        return importlib.import_module("compression.zstd").ZstdFile(whole)  # Python 3.14
    except ImportError:
        version = ".".join(map(str, sys.version_info[:2]))
        reason = f"is compressed with zstd, which Python {version} cannot read"
        raise UnsupportedError("archive", None, reason, "zstd -dc FILE | minicontainer rootfs tar - DIR") from None


class _Rejoined(io.RawIOBase):
    """A file object and the first bytes that were read of it. Closing it does not close the file."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head, self._file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        got: bytes | None = self._head or self._file.read(len(buffer))
        if got is None:
            raise BlockingIOError(errno.EAGAIN, "the archive is read from a non-blocking file")
        if len(got) > len(buffer):
            got, self._head = got[: len(buffer)], got[len(buffer) :]
        else:
            self._head = b""
        buffer[: len(got)] = got
        return len(got)


def open_archive(path: str | os.PathLike[str]) -> IO[bytes]:
    """The file, opened to be read. ArchiveError if it cannot be."""
    try:
        return open(path, "rb", 0)
    except OSError as e:
        raise ArchiveError(os.strerror(e.errno or errno.EIO), archive=os.fspath(path)) from None

"""The decompressed bytes of an archive, read once from beginning to end.

Theory of operation. tarfile parses headers from a file object, which ``Stream`` is. It only moves forward, so no header
can make the parser read data again (a negative size would, endlessly). What tarfile reads into memory for a header
counts against HEADER. The end of the data is returned once, and is an error after that. So neither a compression bomb
nor a loop in the parser can exhaust memory or time. Errors of a decompressor become ArchiveErrors.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import IO, Any, Protocol, cast

from minicontainer.errors import Error, UnsupportedError, sentence

HEADER = 4 << 20  # maximum bytes of one member's headers; names and attributes of Linux need a fraction of it
BLOCK = 512
CHUNK = 1 << 20
TRAILER = 64 << 20  # maximum bytes read after the end of the archive, for a trailing checksum
DIGITS = re.compile(rb"[0-9]{1000}")


class ArchiveError(Error):
    """An archive or a member is invalid, or a member cannot be created.

    ``member``: its name, or None for an error of the archive; ``archive``: the path of the file, if known."""

    def __init__(self, reason: str, member: str | None = None, archive: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.member, self.archive = reason, member, archive

    def __str__(self) -> str:
        if self.member is not None:
            return sentence("member", self.member, self.reason)
        return sentence("archive", self.archive, self.reason)


class Readable(Protocol):
    """Any binary file object: a file, a pipe, a socket, BytesIO."""

    def read(self, size: int, /) -> bytes: ...


class Stream:
    """A file object of the decompressed bytes, read forward only. Does not own ``file``."""

    def __init__(self, file: Readable) -> None:
        self._file = decompressed(file)
        self._position = 0
        self._allowance = HEADER
        self._ended = False
        self.headers = 0  # bytes of headers
        self.last = b""  # the last bytes read: they tell why tarfile stopped

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Skip to ``position``; if the data end before, the next read fails."""
        if position < self._position:
            raise ArchiveError("is damaged: a size is negative")
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
        """Reset the allowance of headers."""
        self._allowance = HEADER

    def drain(self) -> None:
        """Read the rest of the file: padding, and the checksum of the compression, which is verified thereby."""
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
    """The ArchiveError for a decompressor's exception; other errors (of reading the file) are returned unchanged."""
    if isinstance(error, EOFError):
        return ArchiveError("is truncated: its compressed data ends early")
    foreign = isinstance(error, OSError) and error.errno is None
    if foreign or type(error).__module__ in ("zlib", "_lzma", "lzma") or "zstd" in type(error).__module__:
        return ArchiveError(f"its compressed data is damaged: {error}")
    return error


# ---- compression


def decompressed(file: Readable) -> IO[bytes]:
    """A file object of the decompressed content of ``file``; the first bytes identify the compression."""
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

        opened = lzma.LZMAFile(whole)  # noqa: SIM115 - it owns only memory
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
    """A file object preceded by bytes already read from it. Closing it does not close the file."""

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
    """Open the file for reading. ArchiveError if that fails."""
    try:
        return open(path, "rb", 0)
    except OSError as e:
        raise ArchiveError(os.strerror(e.errno or errno.EIO), archive=os.fspath(path)) from None

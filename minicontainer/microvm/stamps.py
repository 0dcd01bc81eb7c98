"""By what a file of the cache knows that what it was made of has not changed: path, time and size of each file."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def of_files(paths: Iterable[str]) -> list[str]:
    """A line for each file: path, time and size; of one that is missing, its path."""
    return [_stamp(path) for path in paths]


def are_current(lines: bytes) -> bool:
    """Whether the files are as they were when these lines were made."""
    text = lines.decode("utf-8", "surrogateescape")
    return all(_stamp(line.split(" ", 2)[-1]) == line for line in text.split("\n"))


def encoded(text: str) -> bytes:
    """A text with paths, which may be any bytes."""
    return text.encode("utf-8", "surrogateescape")


def digest(data: bytes) -> str:
    """BLAKE2b, in hexadecimal digits."""
    try:
        from _blake2 import blake2b  # hashlib loads OpenSSL
    except ImportError:
        from hashlib import blake2b
    return blake2b(data, digest_size=32).hexdigest()


def _stamp(path: str) -> str:
    try:
        info = os.stat(path)
    except (OSError, ValueError):  # a damaged list may hold anything
        return path
    return f"{info.st_mtime_ns} {info.st_size} {path}"

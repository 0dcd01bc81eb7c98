"""initramfs archives in cpio's format "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping

TRAILER = "TRAILER!!!"


def newc(directories: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """An archive of directories and executable files (name -> content), all of mode 755."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in directories]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    return b"".join(_members([*entries, (TRAILER, 0, b"")]))


def _members(entries: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for number, (name, mode, content) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)

"""initramfs archives in cpio's format "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TRAILER = "TRAILER!!!"


def newc(
    directories: Iterable[str], files: Mapping[str, bytes], devices: Mapping[str, tuple[int, int]] | None = None
) -> bytes:
    """An archive of directories and executable files (name -> content), all of mode 755, and of character devices (name
    -> major and minor number) of mode 600."""
    entries = [(name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in directories]
    entries += [(name, stat.S_IFREG | 0o755, content, (0, 0)) for name, content in files.items()]
    entries += [(name, stat.S_IFCHR | 0o600, b"", numbers) for name, numbers in (devices or {}).items()]
    return b"".join(_members([*entries, (TRAILER, 0, b"", (0, 0))]))


def _members(entries: Iterable[tuple[str, int, bytes, tuple[int, int]]]) -> Iterator[bytes]:
    for number, (name, mode, content, device) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)

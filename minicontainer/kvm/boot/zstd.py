"""zstd (RFC 8878) through libzstd, which is opened at first use: Python has no module for it until 3.14."""

from __future__ import annotations

import mmap

from minicontainer._libzstd import ffi
from minicontainer.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SONAME = "libzstd.so.1"


def unpack(packed: bytes, size: int) -> mmap.mmap | None:
    """The ``size`` bytes of the frame at the begin; None: it is damaged, or of another size. UnsupportedError: the
    library is not installed."""
    library: Any
    try:
        library = ffi.dlopen(SONAME)
    except OSError as e:
        reason = f"needs libzstd, which cannot be opened: {e}"
        raise UnsupportedError("zstd", None, reason, "install libzstd1") from None
    source = ffi.from_buffer(packed)
    length = library.ZSTD_findFrameCompressedSize(source, len(packed))
    if library.ZSTD_isError(length) or length > len(packed):
        return None
    content = mmap.mmap(-1, size or 1)
    target = ffi.from_buffer(content)
    done = library.ZSTD_decompress(target, size, source, length)
    ffi.release(target)
    if done == size and not library.ZSTD_isError(done):
        return content
    content.close()
    return None

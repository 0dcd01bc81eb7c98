"""Where what is known of containers is kept while the host is up."""

from __future__ import annotations

import os
from functools import lru_cache

from minicontainer.errors import UnsupportedError


def directory() -> str:
    """``/run/minicontainer``, or below ``$XDG_RUNTIME_DIR`` (else /tmp, by user id) for an ordinary user.

    UnsupportedError where that place is somebody else's."""
    if os.geteuid() == 0:
        return "/run/minicontainer"
    own = f"/tmp/minicontainer-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or own
    _check(runtime, make=runtime == own)
    return f"{runtime}/minicontainer"


@lru_cache(maxsize=8)
def _check(path: str, *, make: bool) -> None:
    """The directory must be the caller's: who else could write there could pass for a monitor. Anybody can make one of
    any name in /tmp."""
    try:
        if make:
            os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as e:
        raise UnsupportedError("XDG_RUNTIME_DIR", path, (e.strerror or str(e)).lower()) from None
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnsupportedError("XDG_RUNTIME_DIR", path, "others can write there", "a directory of your own, mode 700")

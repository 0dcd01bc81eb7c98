"""Where what is known of containers is kept while the host is up."""

from __future__ import annotations

import os


def directory() -> str:
    """``/run/minicontainer``, or below ``$XDG_RUNTIME_DIR`` (else /tmp, by user id) for an ordinary user."""
    if os.geteuid() == 0:
        return "/run/minicontainer"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/minicontainer-{os.geteuid()}"
    return f"{runtime}/minicontainer"

"""Session keyrings (keyrings(7))."""

from __future__ import annotations

from minicontainer.native import lib, syscall


def join_session_keyring() -> int:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): a new anonymous session keyring for this process; its serial number."""
    return syscall("keyctl", lib.SYS_keyctl, lib.KEYCTL_JOIN_SESSION_KEYRING, None, what=("JOIN_SESSION_KEYRING",))

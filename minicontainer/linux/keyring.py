"""Session keyrings (keyrings(7))."""

from __future__ import annotations

from minicontainer.linux.arguments import path
from minicontainer.native import lib, syscall
from minicontainer.plan.step import const


def join_session_keyring(name: str | None = None) -> int:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): the serial number of this process's new session keyring.

    Without a name, the keyring is new and anonymous; with a name, an existing keyring that the caller may search is
    joined, or else a new one is created."""
    operation = const("KEYCTL_JOIN_SESSION_KEYRING")
    value = None if name is None else path(name)
    return syscall("keyctl", lib.SYS_keyctl, operation, value, what=(operation, name))


def keyring_id(special: str) -> int:
    """keyctl(KEYCTL_GET_KEYRING_ID): the serial number of ``KEY_SPEC_SESSION_KEYRING`` and the like; a missing keyring
    is not created."""
    operation, keyring = const("KEYCTL_GET_KEYRING_ID"), const(special)
    return syscall("keyctl", lib.SYS_keyctl, operation, keyring, 0, what=(operation, keyring))

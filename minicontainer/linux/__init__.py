"""Primitives: each a thin typed function named as its man page names it, usable alone, raising OSError with the call
and its object. No policy. Flags are ints (``lib.X``) or names (``"CLONE_NEWUTS|CLONE_NEWNS"``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_HOME = {
    "Cgroup": "cgroup",
    "CapSets": "caps",
    "clone3": "namespaces",
    "close_range": "files",
    "fsconfig": "mounts",
    "fsmount": "mounts",
    "fsopen": "mounts",
    "fspick": "mounts",
    "join_session_keyring": "keyring",
    "links": "network",
    "loopback_up": "network",
    "mount": "mounts",
    "mount_setattr": "mounts",
    "mountinfo": "mounts",
    "move_mount": "mounts",
    "open_tree": "mounts",
    "openat2": "files",
    "pidfd_getfd": "process",
    "pidfd_open": "process",
    "pidfd_send_signal": "process",
    "pivot_root": "namespaces",
    "sealed_memfd": "files",
    "setdomainname": "namespaces",
    "sethostname": "namespaces",
    "setns": "namespaces",
    "start_time": "process",
    "umount": "mounts",
    "unshare": "namespaces",
}
_MODULES = ("caps", "cgroup", "files", "keyring", "mounts", "namespaces", "network", "process", "seccomp")
__all__ = [
    "CapSets",
    "Cgroup",
    "caps",
    "cgroup",
    "clone3",
    "close_range",
    "files",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "join_session_keyring",
    "keyring",
    "links",
    "loopback_up",
    "mount",
    "mount_setattr",
    "mountinfo",
    "mounts",
    "move_mount",
    "namespaces",
    "network",
    "open_tree",
    "openat2",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pivot_root",
    "process",
    "sealed_memfd",
    "seccomp",
    "setdomainname",
    "sethostname",
    "setns",
    "start_time",
    "umount",
    "unshare",
]

if TYPE_CHECKING:
    from minicontainer.linux import caps, cgroup, files, keyring, mounts, namespaces, network, process, seccomp
    from minicontainer.linux.caps import CapSets
    from minicontainer.linux.cgroup import Cgroup
    from minicontainer.linux.files import close_range, openat2, sealed_memfd
    from minicontainer.linux.keyring import join_session_keyring
    from minicontainer.linux.mounts import (
        fsconfig,
        fsmount,
        fsopen,
        fspick,
        mount,
        mount_setattr,
        mountinfo,
        move_mount,
        open_tree,
        umount,
    )
    from minicontainer.linux.namespaces import clone3, pivot_root, setdomainname, sethostname, setns, unshare
    from minicontainer.linux.network import links, loopback_up
    from minicontainer.linux.process import pidfd_getfd, pidfd_open, pidfd_send_signal, start_time


def __getattr__(name: str) -> Any:
    if name not in _HOME and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_HOME.get(name, name)}")
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Linux primitives without policy: thin typed functions, named as in the man pages, each usable alone. An OSError names
the call and its object. Flags are ints (``linux.constants.X``) or names (``"CLONE_NEWUTS|CLONE_NEWNS"``)."""

from __future__ import annotations

_NAMES = {  # module -> its public names; it is imported when one of its names is first used
    "caps": "CapSets cap_ambient capabilities capbset_drop capbset_read capset",
    "cgroup": "Cgroup",
    "files": "close_range openat2 sealed_memfd",
    "keyring": "join_session_keyring",
    "mounts": "MountInfo fsconfig fsmount fsopen fspick mount mount_setattr mountinfo move_mount open_tree statfs_type"
    " umount",
    "namespaces": "clone3 getdomainname gethostname open_namespaces pivot_root setdomainname sethostname setns unshare",
    "network": "Link links loopback_up",
    "process": "Ended personality pidfd_getfd pidfd_open pidfd_send_signal pidfd_wait prctl prlimit start_time waitid",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("caps", "cgroup", "constants", "files", "keyring", "mounts", "namespaces", "network", "process", "seccomp")
__all__ = [
    "CapSets",
    "Cgroup",
    "Ended",
    "Link",
    "MountInfo",
    "cap_ambient",
    "capabilities",
    "capbset_drop",
    "capbset_read",
    "caps",
    "capset",
    "cgroup",
    "clone3",
    "close_range",
    "constants",
    "files",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "getdomainname",
    "gethostname",
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
    "open_namespaces",
    "open_tree",
    "openat2",
    "personality",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pidfd_wait",
    "pivot_root",
    "prctl",
    "prlimit",
    "process",
    "sealed_memfd",
    "seccomp",
    "setdomainname",
    "sethostname",
    "setns",
    "start_time",
    "statfs_type",
    "umount",
    "unshare",
    "waitid",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.linux import (
        caps,
        cgroup,
        constants,
        files,
        keyring,
        mounts,
        namespaces,
        network,
        process,
        seccomp,
    )
    from minicontainer.linux.caps import CapSets, cap_ambient, capabilities, capbset_drop, capbset_read, capset
    from minicontainer.linux.cgroup import Cgroup
    from minicontainer.linux.files import close_range, openat2, sealed_memfd
    from minicontainer.linux.keyring import join_session_keyring
    from minicontainer.linux.mounts import (
        MountInfo,
        fsconfig,
        fsmount,
        fsopen,
        fspick,
        mount,
        mount_setattr,
        mountinfo,
        move_mount,
        open_tree,
        statfs_type,
        umount,
    )
    from minicontainer.linux.namespaces import (
        clone3,
        getdomainname,
        gethostname,
        open_namespaces,
        pivot_root,
        setdomainname,
        sethostname,
        setns,
        unshare,
    )
    from minicontainer.linux.network import Link, links, loopback_up
    from minicontainer.linux.process import (
        Ended,
        personality,
        pidfd_getfd,
        pidfd_open,
        pidfd_send_signal,
        pidfd_wait,
        prctl,
        prlimit,
        start_time,
        waitid,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOME and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_HOME.get(name, name)}", fromlist=[name])
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

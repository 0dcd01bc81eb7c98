"""Whether this process is in the initial user namespace (user_namespaces(7)): every start asks."""

from __future__ import annotations

import os

from minicontainer.native import lib


def is_first_user_namespace() -> bool:
    """Whether this process is in the initial user namespace; True without /proc."""
    try:
        return os.readlink("/proc/self/ns/user") == f"user:[{lib.FIRST_USER_NS}]"  # stat(2) would create an inode
    except OSError:
        return True


def is_root() -> bool:
    """Whether this process is root in the initial user namespace. Root of another user namespace has its capabilities
    only there, not over device nodes, other users' files or bridges of the host (user_namespaces(7))."""
    return os.geteuid() == 0 and is_first_user_namespace()

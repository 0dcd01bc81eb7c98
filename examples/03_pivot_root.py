"""3. Another root: pivot_root(2) by hand, and nothing of the host is left to see.

A detached copy of the directory's mount (open_tree) is attached over it, so that it is a mount point; the old root ends
up above the new one, and is detached from there.

Run as root: python examples/03_pivot_root.py ROOTFS
"""

import os
import sys

from minicontainer import linux
from minicontainer import plan as p

rootfs = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "rootfs")
root = p.Slot("root")
plan = p.Plan(
    [
        p.mount(None, "/", None, "MS_REC|MS_PRIVATE"),
        p.open_tree(rootfs, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE", into=root),
        p.move_mount(root, rootfs),
        p.fchdir(root),
        p.pivot_root(".", "."),
        p.umount2(".", "MNT_DETACH"),
        p.chdir("/"),
        p.close_range(3),
        p.execve(["/bin/sh"], ["sh", "-c", "echo /*; test -e /usr/lib/os-release || echo no host here"], []),
    ]
)
pid, pidfd = linux.clone3(plan, "CLONE_NEWNS")
os.waitpid(pid, 0)
os.close(pidfd)

# expect: /bin
# expect: no host here

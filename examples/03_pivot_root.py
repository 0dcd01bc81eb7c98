"""3. Another root file system: pivot_root(2) by hand, after which no file of the host is visible.

pivot_root(2) needs a mount point, so a copy of the directory's mount (open_tree) is attached to the directory.
pivot_root(".", ".") stacks the old root on top of the new one, and umount2 detaches it from there.

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

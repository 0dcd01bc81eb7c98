"""2. System calls as data: a plan is a list of steps, walked by C in a child made by clone3(2).

No Python runs between the clone and the exec, so the child costs the same whatever this process holds.

Run as root: python examples/02_plan.py
"""

import os

from minicontainer import linux
from minicontainer import plan as p

plan = p.Plan(
    [
        p.sethostname("box"),
        p.mount(None, "/", None, "MS_REC|MS_PRIVATE"),
        p.mount("proc", "/proc", "proc"),  # of the new pid namespace, over the host's, in this mount namespace alone
        p.execve(["/bin/sh"], ["sh", "-c", "echo I am process $$ on $(cat /proc/sys/kernel/hostname)"], []),
    ]
)
print(plan.describe())
pid, pidfd = linux.clone3(plan, "CLONE_NEWPID|CLONE_NEWNS|CLONE_NEWUTS")
_, status = os.waitpid(pid, 0)
os.close(pidfd)
print("its status:", status)

# expect: sethostname\("box", 3\)
# expect: I am process 1 on box
# expect: its status: 0

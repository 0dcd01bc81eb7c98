"""2. System calls as data: a plan is a list of steps, which C code executes in a child made by clone3(2).

No Python runs between clone and exec, so the start takes the same time however much memory this process has.

Run as root: python examples/02_plan.py
"""

import os

from minicontainer import linux
from minicontainer import plan as p

plan = p.Plan(
    [
        p.sethostname("box"),
        p.mount(None, "/", None, "MS_REC|MS_PRIVATE"),
        p.mount(
            "proc", "/proc", "proc"
        ),  # of the new pid namespace; covers the host's, in the new mount namespace only
        p.execve(["/bin/sh"], ["sh", "-c", "echo I am process $$ on $(cat /proc/sys/kernel/hostname)"], []),
    ]
)
print(plan.describe())
pid, pidfd = linux.clone3(plan, "CLONE_NEWPID|CLONE_NEWNS|CLONE_NEWUTS")
_, status = os.waitpid(pid, 0)
os.close(pidfd)
print("wait status:", status)

# expect: sethostname\("box", 3\)
# expect: I am process 1 on box
# expect: wait status: 0

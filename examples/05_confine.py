"""5. Confinement by hand: capabilities, no_new_privs and a seccomp filter, each as a step of a plan.

Run as root: python examples/05_confine.py
"""

import os

from minicontainer import linux
from minicontainer import plan as p

script = "mkdir /tmp/never 2>&1; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
plan = p.Plan(
    [
        p.capbset_drop_all_but(0),
        p.capset(0, 0, 0),
        p.prctl("PR_SET_NO_NEW_PRIVS", 1),
        p.seccomp(linux.seccomp.deny(["mkdir", "mkdirat"])),  # these calls fail with EPERM
        p.reset_signals(),
        p.execve(["/bin/sh"], ["sh", "-c", script], ["PATH=/usr/bin:/bin"]),
    ]
)
pid, pidfd = linux.clone3(plan, "0")
os.waitpid(pid, 0)
os.close(pidfd)

# expect: Operation not permitted
# expect: CapEff:\s+0000000000000000
# expect: CapBnd:\s+0000000000000000
# expect: NoNewPrivs:\s+1
# expect: Seccomp:\s+2

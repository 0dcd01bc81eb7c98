"""4. A cgroup by hand: measure, freeze and kill a group of processes (cgroups(7), cgroup-v2.rst).

Run as root: python examples/04_cgroup.py
"""

import subprocess
import time

from minicontainer.linux import Cgroup

with Cgroup.create("minicontainer-example") as group:
    shell = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    group.add(shell.pid)
    time.sleep(0.2)
    print("members:", group.procs == [shell.pid])
    group.freeze()
    before = group.stat["usage_usec"]
    time.sleep(0.1)
    print("no CPU time used while frozen:", group.stat["usage_usec"] == before)
    group.thaw()
    group.kill()  # SIGKILL to all its processes at once
    print("ended by signal", -shell.wait())
    group.remove()

# expect: members: True
# expect: no CPU time used while frozen: True
# expect: ended by signal 9

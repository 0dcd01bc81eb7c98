"""18. How exec works: the system calls that enter a running container, and the confinement of the new process.

Run: python examples/18_enter.py ROOTFS
"""

import sys

import minicontainer as mc

c = mc.Container.start(["/bin/sleep", "1000"], rootfs=sys.argv[1])
try:
    with c.exec(["/bin/grep", "-E", "NoNewPrivs|Seccomp:|CapBnd", "/proc/self/status"], stdout=mc.PIPE, text=True) as p:
        print(p.communicate()[0])
    for event in p.timeline:  # executed by csrc/helpers/enter.c, which joins, and by the sibling process that it clones
        if event.call.startswith(("setns", "clone3", "seccomp", "execve")):
            print(f"{event.seconds * 1e6:7.1f} us  {event.call[:90]}")
finally:
    c.remove(force=True)

# expect: NoNewPrivs:\s+1
# expect: Seccomp:\s+2
# expect: setns\(<process>, CLONE_NEW
# expect: clone3\(CLONE_PARENT, <cgroup>\)
# expect: execve\(

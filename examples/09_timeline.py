"""9. The timeline of a start: every system call of the parent and the child with its time, as data.

Run as root: python examples/09_timeline.py ROOTFS
"""

import sys

import minicontainer as mc

spec = mc.Spec(["/bin/true"], rootfs=sys.argv[1] if len(sys.argv) > 1 else "rootfs")
for _ in range(20):  # warm
    r = mc.run(spec)
slowest = sorted(r.timeline, key=lambda e: -e.seconds)[:6]
for event in slowest:
    print(f"{event.seconds * 1e6:8.1f} us  {event.side:6}  {event.call[:90]}")
print()
for (side, phase), seconds in r.timeline.phases().items():
    print(f"{seconds * 1e6:8.1f} us  {side:6}  {phase}")

# expect: clone3\(CLONE_VM
# expect: child   root
# expect: parent  cgroup

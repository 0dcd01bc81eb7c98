"""8. Pipes to a running container, and its state as seen from outside.

Run as root: python examples/08_popen.py ROOTFS
"""

import sys

import minicontainer as mc

rootfs = sys.argv[1] if len(sys.argv) > 1 else "rootfs"

with mc.Popen(["/bin/sh"], rootfs=rootfs, stdin=mc.PIPE, stdout=mc.PIPE, text=True) as p:
    assert p.stdin is not None
    assert p.stdout is not None
    p.stdin.write("echo I am $$; hostname\n")
    p.stdin.flush()
    print(p.stdout.readline().strip(), "inside,", p.pid > 1, "outside")
    print("on", p.stdout.readline().strip())
    if p.cgroup is not None:
        print("processes:", len(p.cgroup.procs))
        p.freeze()
        p.thaw()
    print("used so far:", p.usage().cputime is not None)
    out, _ = p.communicate("echo bye; exit 3\n")
print(out.strip(), p.returncode)

# expect: I am 1 inside, True outside
# expect: on [0-9a-f]{12}
# expect: used so far: True
# expect: bye 3

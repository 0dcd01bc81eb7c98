"""7. A whole container: ``run`` works as subprocess.run, and also reports resource usage and the reason of the end.

Run as root: python examples/07_run.py ROOTFS
"""

import sys

import minicontainer as mc

rootfs = sys.argv[1] if len(sys.argv) > 1 else "rootfs"

r = mc.run(["/bin/sh", "-c", "hostname; id -u; ls -d /proc/[0-9]*"], rootfs=rootfs, capture_output=True, text=True)
print(r.stdout)
print(r.returncode, r.reason, f"{r.usage.walltime:.4f} s, {r.usage.cputime:.4f} s of CPU")

end = mc.run(
    ["/bin/sh", "-c", "kill -9 $$; sleep 1; exit 7"], rootfs=rootfs
)  # process 1 of a pid namespace cannot kill itself
print("ended with", end.returncode)

try:
    mc.run(["/bin/sleep", "1000"], rootfs=rootfs, timeout=0.2)
except mc.TimeoutExpired as e:
    print("the whole container was killed:", e)

try:
    mc.run(["/bin/nope"], rootfs=rootfs)
except mc.ProgramError as e:
    print("error:", e)

# expect: [0-9a-f]{12}\n0\n/proc/1\n
# expect: 0 exited
# expect: ended with 7
# expect: timed out after 0.2 seconds
# expect: error: program /bin/nope: not found

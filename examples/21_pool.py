"""21. A pool: containers that are ready up to the exec, timed beside ``mc.run``.

Run as root: python examples/21_pool.py ROOTFS
"""

import sys
from statistics import median

import minicontainer as mc

spec = mc.Spec(["/bin/true"], rootfs=sys.argv[1] if len(sys.argv) > 1 else "rootfs")


def milliseconds(result: mc.Result[bytes]) -> float:
    """From the start, or the request, to the program's first instruction."""
    events = [event for event in result.timeline if event.phase != "cgroup"]
    return (next(e.end for e in events if e.call.startswith(("clone3", "execve("))) - events[0].start) / 1e6


with mc.Pool(spec, size=8, thread=False) as pool:
    pool.fill()
    print(len(pool), "wait")
    results = [pool.run() for _ in range(8)]
    print(len(pool), "wait")
    print("each in a container of its own:", len({pool.run(["hostname"], stdout=mc.PIPE).stdout for _ in range(3)}))

    result = pool.run(
        ["/bin/sh", "-c", 'echo "$GREETING from $PWD"'], env={"GREETING": "hi"}, cwd="/tmp", stdout=mc.PIPE
    )
    print(result.stdout.decode().strip())
    try:
        pool.run(["nothing"])
    except mc.ProgramError as e:
        print(e)

print(results[0].timeline.format())
ready = median(map(milliseconds, results))
started = median(milliseconds(mc.run(spec)) for _ in range(8))
print(f"first instruction after {ready:.1f} ms; of mc.run {started:.1f} ms")

# expect: 8 wait
# expect: 0 wait
# expect: own: 3
# expect: hi from /tmp
# expect: program nothing: not found in the container
# expect: child +execve\('/bin/true'\)
# expect: first instruction after [0-9.]+ ms; of mc.run [0-9.]+ ms

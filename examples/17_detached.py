"""17. A detached container, which outlives its caller: start, logs, exec, stop, start again, remove. No daemon.

Run: python examples/17_detached.py ROOTFS
"""

import sys

import minicontainer as mc

SCRIPT = "trap 'echo goodbye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"

c = mc.Container.start(["/bin/sh", "-c", SCRIPT], rootfs=sys.argv[1], name="example-17", restart="on-failure:3")
try:
    for entry in c.logs(follow=True):  # the log, written by the container's monitor
        print(entry.stream, entry.data.decode().strip())
        break

    processes = c.run(
        ["ps", "-o", "pid,args"], capture_output=True, text=True
    ).stdout  # exec: a process in its namespaces
    print(processes)

    monitor = c.state.monitor
    assert monitor is not None
    with open(f"/proc/{monitor.pid}/status", encoding="ascii") as f:
        print(next(line.strip() for line in f if line.startswith("VmRSS")), "of its monitor")

    c.stop()  # sends the stop signal, and SIGKILL after a time-out
    print("stopped:", c.state.status, c.state.exit_code)
    c.start_again()
    print("again:", c.status, [other.name for other in mc.containers() if other.id == c.id])
finally:
    c.remove(force=True)

# expect: stdout ready
# expect: 1 /bin/sh -c trap
# expect: VmRSS:\s+\d{2,3} kB of its monitor
# expect: stopped: exited 0
# expect: again: running \['example-17'\]

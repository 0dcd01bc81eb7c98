"""Kills managers and monitors of detached containers at random, and counts what one clean-up leaves. A program:

    python tests/killing.py ROUNDS [SEED]

In each round a process starts, stops, restarts and removes containers, and it, or one of their monitors, is killed at a
random moment. Then ``doctor --clean`` and ``rm -f`` of what is listed are called once each, and what is still there is
counted: processes, cgroups, directories, names. Prints the seed and the count, which should be 0.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time

MANAGER = """
import random, sys
import minicontainer as mc
from minicontainer.errors import Error
random.seed(int(sys.argv[2]))
spec = mc.Spec(["sh", "-c", "sleep 0.0%d; exit 1" % random.randrange(1, 9)], rootfs=sys.argv[1])
made = []
print("begun", flush=True)
while True:
    try:
        what = random.randrange(6)
        if what < 2 or not made:
            made.append(mc.Container.start(spec, restart=random.choice(["no", "always"]), remove=random.random() < 0.2))
        elif what == 2:
            made[-1].stop(0)
        elif what == 3:
            made[-1].restart(0)
        elif what == 4:
            made.pop().remove(force=True)
        else:
            made[-1].rename("kill%d" % random.randrange(5))
    except (Error, OSError):
        pass
"""


def monitors() -> set[int]:
    """The monitor processes of our own state directory: of no other containers that this host has."""
    from minicontainer.container.cgroup import placement

    group = placement.monitors()
    if group is None:
        return set()  # none has been started yet
    with open(f"{group.path}/cgroup.procs", encoding="ascii") as file:
        return set(map(int, file.read().split()))


def cgroups() -> set[str]:
    """The cgroups of containers, except those that belong to another process than a monitor."""
    from minicontainer.container.cgroup import placement
    from minicontainer.container.registry import ownership

    members = [path for parent in placement._parents() for path in placement._members(parent)]
    return {path for path in members if not ownership.is_owned(path.rpartition("/")[2][:12])}


def kill_somebody(manager: subprocess.Popen[bytes], before: set[int], chance: random.Random) -> None:
    """Kill the manager, or first one of its monitors."""
    time.sleep(chance.random() * 0.06)
    if chance.random() < 0.5:
        victims = sorted(monitors() - before)
        if victims:
            os.kill(chance.choice(victims), 9)
            time.sleep(chance.random() * 0.02)
    manager.kill()
    manager.wait()


def clean() -> None:
    """The clean-up: each command once, as an operator would type it."""
    from minicontainer import doctor
    from minicontainer.detached.container import containers

    doctor.clean(tempfile.gettempdir())
    for container in containers():
        container.remove(force=True)


def rounds(count: int, seed: int, rootfs: str) -> int:
    """The number of leftovers after all rounds. The state directory belongs to this process only."""
    from minicontainer.container.registry import names
    from minicontainer.detached import store

    store.LOCK_GRACE = 0.0  # no other process creates containers here
    chance, left = random.Random(seed), 0
    groups, others = cgroups(), monitors()
    for number in range(count):
        command = [sys.executable, "-c", MANAGER, rootfs, str(seed + number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as manager:
            assert manager.stdout is not None
            manager.stdout.readline()
            kill_somebody(manager, others, chance)
        clean()
        found = [*(cgroups() - groups), *(monitors() - others), *names.ids(), *names.all_names()]
        if found:
            print(f"round {number}: {found}", flush=True)
        left += len(found)
    return left


def main() -> int:
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**9)
    if os.environ.get("KILLING") != "1":
        with tempfile.TemporaryDirectory(prefix="minicontainer-killing-", dir="/run") as own:
            environment = {**os.environ, "KILLING": "1", "MINICONTAINER_ROOT": own}
            return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
    from minicontainer import rootfs

    with tempfile.TemporaryDirectory() as directory:
        rootfs.busybox(f"{directory}/root")
        left = rounds(count, seed, f"{directory}/root")
    print(f"seed {seed}: {left} left after {count} rounds of kill -9")
    return int(left != 0)


if __name__ == "__main__":
    sys.exit(main())

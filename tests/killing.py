"""Kills managers and monitors of detached containers, or owners of pools, at random, and counts what one clean-up
leaves. A program:

    python tests/killing.py [--pools] ROUNDS [SEED]

In each round a process starts, stops, restarts and removes containers, and it, or one of their monitors, is killed at a
random moment; with --pools a process runs programs in a pool, and it, or one of its containers, is killed. Then
``doctor --clean`` and ``rm -f`` of what is listed are called once each, and what is still there is counted:
processes, cgroups, directories, names. Prints the seed and the count, which should be 0.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

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


OWNER = """
import os, random, sys, threading
import minicontainer as mc
from minicontainer.errors import Error
random.seed(int(sys.argv[2]))
spec = mc.Spec(["sh", "-c", "sleep 0.00%d" % random.randrange(1, 9)], rootfs=sys.argv[1])
pool = mc.Pool(spec, size=random.randrange(1, 5), thread=random.random() < 0.8)
def serve():
    while True:
        try:
            if random.random() < 0.1:
                pool.fill()
            elif random.random() < 0.2:
                mc.Pool(spec, size=2).close()
            else:
                pool.run(capture_output=random.random() < 0.5)
        except (Error, OSError):
            pass
print("begun", flush=True)
threading.Thread(target=serve, daemon=True).start()
serve()
"""


def monitors() -> set[int]:
    """The monitor processes of our own state directory: of no other containers that this host has."""
    from minicontainer.container.cgroup import placement

    group = placement.monitors()
    if group is None:
        return set()  # none has been started yet
    with open(f"{group.path}/cgroup.procs", encoding="ascii") as file:
        return set(map(int, file.read().split()))


def cgroups(*, owned: bool = False) -> set[str]:
    """The cgroups of containers, except those that have an owner."""
    from minicontainer.container.cgroup import orphans
    from minicontainer.container.registry import ownership

    members = [path for parent in orphans.parents() for path in orphans.members(parent)]
    return {path for path in members if owned or not ownership.is_owned(path.rpartition("/")[2][:12])}


def containers_of(owner: int) -> set[int]:
    """The processes 1 of a process's containers."""
    found: set[int] = set()
    for thread in os.listdir(f"/proc/{owner}/task"):
        with suppress(FileNotFoundError), open(f"/proc/{owner}/task/{thread}/children", encoding="ascii") as file:
            found |= set(map(int, file.read().split()))
    return found


def kill_somebody(manager: subprocess.Popen[bytes], others: Callable[[], set[int]], chance: random.Random) -> None:
    """Kill the manager, or first one of the others."""
    time.sleep(chance.random() * 0.06)
    if chance.random() < 0.5:
        victims = sorted(others())
        if victims:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(victims), 9)
            time.sleep(chance.random() * 0.02)
    manager.kill()
    manager.wait()


def running() -> list[str]:
    """The processes of a pool's containers that have not ended by themselves within 10 seconds: those that waited, and
    short programs."""
    deadline = time.monotonic() + 10
    while True:
        found: list[str] = []
        for path in cgroups(owned=True):
            with suppress(OSError), open(f"{path}/cgroup.procs", encoding="ascii") as file:
                found += file.read().split()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.001)


def clean() -> None:
    """The clean-up: each command once, as an operator would type it."""
    from minicontainer import doctor
    from minicontainer.detached.container import containers

    doctor.clean(tempfile.gettempdir())
    for container in containers():
        container.remove(force=True)


def rounds(program: str, count: int, seed: int, rootfs: str) -> int:
    """The number of leftovers after all rounds. The state directory belongs to this process only."""
    from minicontainer.container.registry import names
    from minicontainer.detached import store

    store.LOCK_GRACE = 0.0  # no other process creates containers here
    chance, left = random.Random(seed), 0
    groups, others = cgroups(), monitors()
    for number in range(count):
        command = [sys.executable, "-c", program, rootfs, str(seed + number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as manager:
            assert manager.stdout is not None
            manager.stdout.readline()
            own = partial(containers_of, manager.pid) if program is OWNER else lambda: monitors() - others
            kill_somebody(manager, own, chance)
        alive = running() if program is OWNER else []
        clean()
        found = [*alive, *(cgroups() - groups), *(monitors() - others), *names.ids(), *names.all_names()]
        if found:
            print(f"round {number}: {found}", flush=True)
        left += len(found)
    return left


def remove_parents() -> None:
    """Removes the cgroups that all containers of our state directory share, and leave."""
    from minicontainer.container.cgroup import orphans, placement

    for parent in orphans.parents():
        for path in (f"{parent}/{placement.MONITORS}", parent):
            with suppress(OSError):
                os.rmdir(path)


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--pools"]
    program = OWNER if "--pools" in sys.argv else MANAGER
    count = int(words[0])
    seed = int(words[1]) if len(words) > 1 else random.randrange(10**9)
    if os.environ.get("KILLING") != "1":
        with tempfile.TemporaryDirectory(prefix="minicontainer-killing-", dir="/run") as own:
            environment = {**os.environ, "KILLING": "1", "MINICONTAINER_ROOT": own}
            return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
    from minicontainer import rootfs

    with tempfile.TemporaryDirectory() as directory:
        rootfs.busybox(f"{directory}/root")
        left = rounds(program, count, seed, f"{directory}/root")
    remove_parents()
    print(f"seed {seed}: {left} left after {count} rounds of kill -9")
    return int(left != 0)


if __name__ == "__main__":
    sys.exit(main())

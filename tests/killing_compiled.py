"""Kills compiled containers at random moments, and counts what one clean-up leaves. A program:

    python tests/killing_compiled.py ROUNDS [SEED]

In each round a file is started and killed after some milliseconds: while it checks, takes its resources, starts the
container, waits for it, or removes it. Then ``doctor --clean`` is called once, and what is still there is counted:
processes, cgroups, mounts, files. Prints the seed and the count, which should be 0.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MARKER = f"94{os.getpid()}"  # seconds that nobody else sleeps
SCRIPT = f"(setsid sleep {MARKER} &); (trap '' TERM HUP; sleep {MARKER}) & sleep 0.004"
KINDS: tuple[tuple[list[str], dict[str, Any]], ...] = (  # the command, and fields of its spec
    (["true"], {}),
    (["sh", "-c", SCRIPT], {}),
    (["sh", "-c", SCRIPT], {"init": True, "ephemeral": True}),
    (["sh", "-c", SCRIPT], {"userns": "host"}),
)


def processes() -> set[int]:
    """The processes of the containers."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and f"sleep\0{MARKER}\0".encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.add(int(entry))
        except OSError:
            continue  # it has ended
    return found


def cgroups() -> set[str]:
    """The cgroups of containers of this state directory."""
    from minicontainer.container.cgroup import orphans

    return {path for parent in orphans.parents() for path in orphans.members(parent)}


def files(state: str) -> set[str]:
    """The files of the state directory, without those that stay: the mark, and locks."""
    found = {str(path.relative_to(state)) for path in Path(state).rglob("*") if path.is_file()}
    return {name for name in found if name != "mark" and not name.startswith("owners/")}


def mounts() -> int:
    """How many mounts this host has."""
    return len(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())


def kill_one(file: str, chance: random.Random) -> None:
    """Start the file, and kill it."""
    with subprocess.Popen([file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        time.sleep(chance.random() * chance.choice([0.002, 0.006, 0.02]))
        process.kill()


def await_ends() -> None:
    """Wait until the locks are free: a child that the kill has met before its exec lives on until it misses its parent,
    and so does a container whose process 1 is being killed."""
    from minicontainer.container.registry import ownership

    end = time.monotonic() + 10
    while any(ownership.is_owned(path.rpartition("/")[2][:12]) for path in cgroups()) and time.monotonic() < end:
        time.sleep(0.001)


def rounds(count: int, seed: int, rootfs: str) -> int:
    """The number of leftovers after all rounds. The state directory belongs to this process only."""
    import minicontainer as mc
    from minicontainer import doctor

    chance, left, state = random.Random(seed), 0, os.environ["MINICONTAINER_ROOT"]
    with tempfile.TemporaryDirectory() as directory:
        made = [f"{directory}/{i}" for i in range(len(KINDS))]
        for path, (command, fields) in zip(made, KINDS, strict=True):
            mc.compile(command, path, rootfs=rootfs, **fields)
        before = (cgroups(), files(state), mounts())
        for number in range(count):
            kill_one(chance.choice(made), chance)
            await_ends()
            doctor.clean(tempfile.gettempdir())
            found = [*processes(), *(cgroups() - before[0]), *(files(state) - before[1])]
            found += ["a mount"] * max(0, mounts() - before[2])
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
    from minicontainer.container.cgroup import orphans
    from minicontainer.linux import mounts as linux_mounts
    from minicontainer.linux import unshare

    unshare("CLONE_NEWNS")  # where nobody else mounts anything
    linux_mounts.mount(None, "/", None, "MS_REC|MS_PRIVATE")
    with tempfile.TemporaryDirectory() as directory:
        rootfs.busybox(f"{directory}/root")
        left = rounds(count, seed, f"{directory}/root")
    for parent in orphans.parents():
        os.rmdir(parent)
    print(f"seed {seed}: {left} left after {count} rounds of kill -9")
    return int(left != 0)


if __name__ == "__main__":
    sys.exit(main())

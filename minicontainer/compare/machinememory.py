"""The memory of machines beside their guests', for ``compare microvm``:

    python -m minicontainer.compare.machinememory KERNEL MEMORY ROOT

starts two machines whose program waits, and prints the bytes of each state as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from minicontainer.compare.contenders import last_line, own_command
from minicontainer.compare.targets import Limit
from minicontainer.errors import Error
from minicontainer.linux import processes
from minicontainer.spec.values import size

MIB = 1 << 20
SAID = b"ready\n"
WAITS = ("sh", "-c", "echo ready; exec sleep 1000")
RUN, MONITOR = "run --isolation kvm, MiB", "of it the monitor, MiB"
FURTHER = "a further machine of one process, MiB"
LIMITS = (Limit(RUN, 12.0), Limit(FURTHER, 1.0))


def measure(kernel: str, memory: str, root: str) -> dict[str, float]:
    """Mebibytes by RUN (the command and its monitor), MONITOR and FURTHER (a monitor, and what the process itself has
    more): proportional set sizes, without what is mapped for guests."""
    command = own_command("run", "-m", memory, "--isolation", "kvm", "--kernel", kernel, root, *WAITS)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            _expect_ready(run)
            own, *others = [beside_guest(pid, size("memory", memory)) for pid in tree(run.pid)]
        finally:
            run.terminate()
    words = [sys.executable, "-m", "minicontainer.compare.machinememory", kernel, memory, root]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        raise Error(f"compare microvm: memory of machines: {last_line(done.stderr)} (status {done.returncode})")
    first, second = json.loads(done.stdout)
    return {RUN: (own + sum(others)) / MIB, MONITOR: sum(others) / MIB, FURTHER: (second - first) / MIB}


def _expect_ready(run: subprocess.Popen[bytes]) -> None:
    assert run.stdout is not None
    assert run.stderr is not None
    if run.stdout.readline() != SAID:
        raise Error(f"compare microvm: memory of machines: {last_line(run.stderr.read())} (status {run.wait()})")


def beside_guest(pid: int, memory: int) -> int:
    """Bytes (Pss of proc(5), smaps) of a process, without mappings as large as a guest's ``memory``."""
    return sum(held for mapped, held in _mappings(pid) if mapped < memory // 2)


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    parents, found = processes.parents(), [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


def _mappings(pid: int) -> Iterator[tuple[int, int]]:
    """Size and proportional set size of each mapping, in bytes."""
    mapped = 0
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("Size:"):
                mapped = int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                yield mapped, int(line.split()[1]) * 1024


def main(arguments: Sequence[str]) -> None:
    """Print the bytes with one machine, and with two, in this process."""
    from minicontainer.container.process import PIPE, Popen

    kernel, memory, root = arguments
    fields: dict[str, Any] = {"rootfs": root, "isolation": "kvm", "kernel": kernel, "limits": {"memory": memory}}
    started: list[Popen[bytes]] = []
    found = []
    try:
        for _ in range(2):
            machine = Popen(WAITS, stdout=PIPE, **fields)
            started.append(machine)
            assert machine.stdout is not None
            if machine.stdout.readline() != SAID:
                raise Error("a machine has ended at once")
            found.append(sum(beside_guest(pid, size("memory", memory)) for pid in tree(os.getpid())))
    finally:
        for machine in started:
            machine.kill()
            machine.communicate()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])

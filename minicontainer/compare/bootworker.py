"""Machines on request, for ``compare boot``:

    python -m minicontainer.compare.bootworker boot GUEST GIB
    python -m minicontainer.compare.bootworker exits GUEST N PORT
    python -m minicontainer.compare.bootworker idle GUEST N

Each line on stdin requests one measurement and gets one line, as from csrc/floors/kvmfloor.c. ``boot``: nanoseconds
until the guest can be entered, until its first exit, and until everything is closed, in a process with GIB gibibytes of
resident memory. ``exits``: nanoseconds of one exit. ``idle``: the cost of N machines, as JSON.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from minicontainer.compare.worker import ballast
from minicontainer.kvm.bus import Access
from minicontainer.kvm.machine import Machine
from minicontainer.native import now

COUNT_PORT, PORT_PORT = 0x510, 0x514  # csrc/guests/exits.S
PYTHON_PORT = 0x500
DESCRIPTORS = 3  # per machine: /dev/kvm, the VM, its vCPU
SPARE = 64


def expect_halt(reason: str) -> None:
    """Exit with an error if the guest has ended otherwise."""
    if reason != "halt":
        raise SystemExit(f"the guest ended with {reason}")


def boot(guest: str) -> str:
    """Create a machine, run it to its halt, and close it."""
    start = now()
    with Machine() as machine:
        machine.load(guest)
        machine.start()
        created = now()
        result = machine.run()
        first = machine.processors[0].control.first_ns
    ended = now()
    expect_halt(result.reason)
    return f"{created - start} {first - start} {ended - start}"


def exits(guest: str, count: int, port: int) -> str:
    """Time of one of ``count`` writes to a port: C handles the serial port's, a Python function PYTHON_PORT."""
    began = 0
    with Machine() as machine:
        machine.load(guest)

        @machine.port(PYTHON_PORT)
        def take(_: Access) -> None:
            return None

        @machine.port(COUNT_PORT)
        def read_count(_: Access) -> int:
            return count

        @machine.port(PORT_PORT)
        def read_port(_: Access) -> int:
            nonlocal began
            began = now()
            return port

        result = machine.run()
        ended = machine.processors[0].control.left_ns  # when KVM_RUN returned for the guest's HLT
    expect_halt(result.reason)
    return str((ended - began) // count)


# ---- many at once


def kilobytes(path: str, *names: str) -> list[int]:
    """Values of /proc/self/smaps_rollup or /proc/meminfo in bytes (the files have kB)."""
    with open(path, encoding="ascii") as file:
        found = {line.partition(":")[0]: line.split() for line in file}
    return [int(found[name][1]) * 1024 for name in names]


def usage() -> dict[str, int]:
    """Memory of this process and of the system, in bytes."""
    rss, pss = kilobytes("/proc/self/smaps_rollup", "Rss", "Pss")
    available, slab, tables = kilobytes("/proc/meminfo", "MemAvailable", "SUnreclaim", "PageTables")
    return {"rss": rss, "pss": pss, "system": -available, "slab": slab, "page_tables": tables}


def lack_of_descriptors(count: int) -> str:
    """Raise the limit of open descriptors for ``count`` machines; a reason if that is not permitted."""
    import resource

    need = count * DESCRIPTORS + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), max(hard, need)))
    except (OSError, ValueError):
        return f"{count} machines need {need} descriptors, and a process may have {hard} (ulimit -Hn)"
    return ""


def idle(guest: str, count: int) -> str:
    """``count`` machines, each run to its halt and kept open: bytes per machine, seconds to create and close all."""
    import gc
    import json

    if reason := lack_of_descriptors(count):
        return json.dumps({"unable": reason})
    gc.collect()
    before, start = usage(), now()
    with ExitStack() as stack:
        for _ in range(count):
            machine = stack.enter_context(Machine())
            machine.load(guest)
            expect_halt(machine.run().reason)
        made, after = now(), usage()
        closing = now()
    ended = now()
    each = {name: (after[name] - before[name]) / count for name in after}
    seconds = {"create_seconds": (made - start) / 1e9, "close_seconds": (ended - closing) / 1e9}
    return json.dumps({"machines": count, "bytes": each, **seconds})


def main() -> None:
    """Answer requests until the end of stdin."""
    what, guest, *words = sys.argv[1:]
    numbers = [int(word, 0) for word in words]
    held = ballast(numbers[0]) if what == "boot" else None
    answers = {
        "boot": lambda: boot(guest),
        "exits": lambda: exits(guest, *numbers),
        "idle": lambda: idle(guest, *numbers),
    }
    for _ in sys.stdin:
        print(answers[what](), flush=True)
    del held


if __name__ == "__main__":
    main()

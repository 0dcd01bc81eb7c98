"""Worker of ``compare startup``: ``python -m minicontainer.compare.worker ROOTFS PROGRAM N [WAY]``.

Each line on stdin requests one run, and is answered with its nanoseconds, as by csrc/floors/floor.c. N gibibytes are
written first, so that they are resident. WAY is a way into the library:

reused     ``run`` of one spec (the default): nanoseconds in all, and those of Python
large      the same, in all alone
bare       the same with BARE instead of the defaults
keywords   ``run`` of a new command with keywords, each time
captured   the same with its output captured
replaced   ``run`` of a spec that was made from another, each time
pool       ``Pool.run``, in a pool that is filled between the runs; also the nanoseconds to the exec
exec       ``Container.run`` in the running container ROOTFS
threads    ``run`` of one spec THREADS times EACH by one thread, then by THREADS threads: nanoseconds of each
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

from minicontainer.records import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.spec import Spec

PAGE = 4096
BARE: dict[str, Any] = {"userns": "host", "seccomp": "unconfined", "timens": "host"}
THREADS, EACH = 8, 10  # runs of each thread: a rate needs more than one


def ballast(gib: int) -> bytearray:
    """Resident memory: every page is written."""
    held = bytearray(gib << 30)
    held[::PAGE] = b"\1" * len(range(0, len(held), PAGE))
    return held


def timed(run: Callable[[], object]) -> int:
    """Nanoseconds of one call."""
    start = perf_counter_ns()
    run()
    return perf_counter_ns() - start


def way(name: str, rootfs: str, program: str) -> Callable[[], Sequence[int]]:
    """A function that runs a container by this way in, and returns its nanoseconds."""
    from minicontainer.container.running import run
    from minicontainer.spec import Spec

    if name == "exec":
        return in_container(rootfs, program)
    if name == "pool":
        return in_pool(Spec((program,), rootfs=rootfs))
    spec = Spec((program,), rootfs=rootfs, **(BARE if name == "bare" else {}))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    count = 0

    def command() -> dict[str, Any]:
        nonlocal count
        count += 1
        return {"args": [program, f"argument-{count}"], "env": {"NUMBER": str(count)}, "hostname": f"host-{count}"}

    def once() -> object:
        if name == "replaced":
            return run(replace(spec, **command()), stdin=null, check=True)
        if name in ("keywords", "captured"):
            return run(rootfs=rootfs, stdin=null, capture_output=name == "captured", check=True, **command())
        return run(spec, stdin=null, check=True)

    if name == "threads":
        return lambda: by_threads(once)
    return (lambda: with_python(once)) if name == "reused" else (lambda: [timed(once)])


def with_python(once: Callable[[], Any]) -> Sequence[int]:
    """As ``way``; and what no primitive of the timeline takes, before the clone and after the program's end."""
    start = perf_counter_ns()  # CLOCK_MONOTONIC, as in the timeline
    result = once()
    end = perf_counter_ns()
    events = result.timeline
    made = [e for e in events if e.phase == "cgroup"]
    walked = min(e.start for e in events if e.phase != "cgroup" and not e.call.startswith("lock ids"))
    ended = [e for e in events if e.phase in ("wait", "measure", "remove")]
    took = sum(e.end - e.start for e in (*made, *ended))
    return end - start, (walked - start) + (end - min(e.start for e in ended)) - took


def in_container(identifier: str, program: str) -> Callable[[], Sequence[int]]:
    """As ``way``, in a running container."""
    from minicontainer.container.process import DEVNULL
    from minicontainer.detached.container import Container

    container = Container(identifier)
    return lambda: [timed(lambda: container.run([program], stdin=DEVNULL, check=True))]


def in_pool(spec: Spec) -> Callable[[], Sequence[int]]:
    """As ``way``, in a pool. The second figure ends with the exec of the program."""
    from minicontainer.pool.pool import Pool

    pool = Pool(spec, size=2, thread=False)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def once() -> Sequence[int]:
        pool.fill()
        start = perf_counter_ns()
        result = pool.run(stdin=null, check=True)
        took = perf_counter_ns() - start
        events = result.timeline
        return took, next(e.end for e in events if e.phase == "execute") - events[0].start

    return once


def by_threads(once: Callable[[], object]) -> list[int]:
    """Nanoseconds of THREADS times EACH runs by one thread, and by THREADS threads."""
    from concurrent.futures import ThreadPoolExecutor

    def several(_: int) -> None:
        for _ in range(EACH):
            once()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: once(), range(THREADS)))  # the threads are made
        return [
            timed(lambda: list(map(several, range(THREADS)))),
            timed(lambda: list(pool.map(several, range(THREADS)))),
        ]


def main() -> None:
    """Answer requests until the end of stdin."""
    rootfs, program, gib, *words = sys.argv[1:]
    held = ballast(int(gib))
    once = way((words or ["reused"])[0], rootfs, program)
    for _ in sys.stdin:
        print(*once(), flush=True)
    del held


if __name__ == "__main__":
    main()

"""Worker of ``compare startup``: ``python -m minicontainer.compare.worker ROOTFS PROGRAM N [bare]``.

Each line on stdin requests one ``run`` of a prebuilt spec, and is answered with its nanoseconds, as by
csrc/floors/floor.c. N gibibytes are written first, so that they are resident. ``bare``: with BARE instead of the
defaults.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter_ns
from typing import Any

PAGE = 4096
BARE: dict[str, Any] = {"userns": "host", "seccomp": "unconfined", "timens": "host"}


def ballast(gib: int) -> bytearray:
    """Resident memory: every page is written."""
    held = bytearray(gib << 30)
    held[::PAGE] = b"\1" * len(range(0, len(held), PAGE))
    return held


def main() -> None:
    """Answer requests until the end of stdin."""
    from minicontainer.container.running import run
    from minicontainer.spec import Spec

    rootfs, program, gib, *words = sys.argv[1:]
    held = ballast(int(gib))
    spec = Spec((program,), rootfs=rootfs, **(BARE if words == ["bare"] else {}))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for _ in sys.stdin:
        start = perf_counter_ns()
        result = run(spec, stdin=null)
        took = perf_counter_ns() - start
        if result.returncode != 0:
            raise SystemExit(f"{program} ended with {result.returncode}")
        print(took, flush=True)
    del held


if __name__ == "__main__":
    main()

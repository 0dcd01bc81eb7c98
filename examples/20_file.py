"""20. A container as a file: an executable that starts it without Python, timed beside ``mc.run``.

Run: python examples/20_file.py ROOTFS
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import minicontainer as mc

spec = mc.Spec(["sh", "-c", 'echo "$GREETING, $1, from process $$"', "sh"], rootfs=sys.argv[1])


def run(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def median(action: Callable[[], object], times: int = 15) -> float:
    """The median of the milliseconds that it takes."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append((time.perf_counter() - start) * 1e3)
    return sorted(taken)[times // 2]


with tempfile.TemporaryDirectory() as directory:
    file = f"{directory}/greet"
    mc.compile(spec, file, inherit_env=["GREETING"], timeout=10)
    print(run(file, "world", GREETING="hello").stdout, end="")

    explained = run(file, "--explain", "x", GREETING="")
    print(*(line for line in explained.stderr.splitlines() if "pivot_root" in line), sep="\n")

    refused = run(file, "world")
    print("exit code", refused.returncode, refused.stderr, end="")

    mc.compile(["true"], file, rootfs=sys.argv[1])
    print(f"{median(lambda: run(file)):.1f} ms with the start of a process")
    print(f"{median(lambda: mc.run(['true'], rootfs=sys.argv[1])):.1f} ms by mc.run in this process")

# expect: ^hello, world, from process 1
# expect: child +pivot_root\("\.", "\."\) = 0
# expect: exit code 125 minicontainer: --env GREETING: is not set here
# expect: ms with the start of a process

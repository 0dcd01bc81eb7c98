"""A signal handler that raises while a machine runs or is closed, at many moments: what was begun is ended, and the
machine can be closed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from signalling import interrupting

pytestmark = pytest.mark.needs("kvm")

CODE = """
import os, time
from minicontainer import Machine

STORM = b"\\xe6\\x10\\xeb\\xfc"  # out 0x10, al; jmp to it

def made(**options):
    machine = Machine(**options)
    machine.load(STORM)
    machine.start()
    return machine

def run(**options):
    with made(**options) as machine:
        machine.run(timeout=0.001)

def close():
    machine = made()
    try:
        machine.close()
    finally:
        machine.close()
        assert machine.memory._map.closed

def tasks():
    # Of ours: the kernel has one for each machine, kvm-nx-lpage-recovery, and where the handler raises right after the
    # call that made the machine, nobody has its descriptor.
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    return sum(not name.startswith("kvm-") for name in names)

run(irqchip=True, cpus=2)
before = tasks()
{calls}
deadline = time.monotonic() + 60
while tasks() > before and time.monotonic() < deadline:
    time.sleep(0.05)
print(tasks() - before, "threads are left")
"""


@pytest.mark.parametrize(
    ("call", "most", "times"),
    [
        ("run()", 0.003, 600),
        ("run(irqchip=True)", 0.004, 150),
        ("run(irqchip=True, cpus=2)", 0.004, 150),
        ("close()", 0.0015, 300),
    ],
)
def test_at_many_moments(call: str, most: float, times: int) -> None:
    code = CODE.replace("{calls}", interrupting(call, most, times))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=False)
    # (a handler may also raise in __del__, where the interpreter prints that and goes on)
    assert (done.returncode, done.stdout) == (0, "0 threads are left\n"), done.stderr

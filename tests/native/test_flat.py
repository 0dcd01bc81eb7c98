"""Many containers, one behind the other, in one process: nothing of it grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import minicontainer

pytestmark = pytest.mark.needs("root")

RUNS = """
import gc, os, sys, time
import minicontainer as mc

def once(number):
    if sys.argv[2] == "run":
        mc.run(spec, stdin=mc.DEVNULL)
    elif sys.argv[2] == "exec":
        c.run(["/pause"], stdin=mc.DEVNULL)
    else:
        mc.Container.start(spec, labels={"n": str(number)}).remove(force=True)

def held():
    # the least of several looks: what goes away by itself is no growth
    looks = []
    for _ in range(10):
        gc.collect()
        with open("/proc/self/statm") as f:
            looks.append((len(os.listdir("/proc/self/fd")), int(f.read().split()[1]) * 4))
        time.sleep(0.05)
    return min(looks)

spec = mc.Spec(["/pause"], rootfs=sys.argv[1])
if sys.argv[2] == "exec":
    c = mc.Container.start(["/pause", "for-ever"], rootfs=sys.argv[1], remove=True)
count = int(sys.argv[3])
for number in range(count // 10):
    once(number)
before = held()
for number in range(count):
    once(number)
after = held()
if sys.argv[2] == "exec":
    c.stop(0)
print(after[0] - before[0], after[1] - before[1])
"""


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    """A root file system of one static program."""
    pause = Path(minicontainer.__file__).parent / "libexec/pause"
    (tmp_path / "root").mkdir()
    (tmp_path / "root/pause").write_bytes(pause.read_bytes())
    (tmp_path / "root/pause").chmod(0o755)
    return tmp_path / "root"


@pytest.mark.parametrize(("what", "count"), [("run", 10_000), ("exec", 2_000), ("detached", 1_000)])
def test_descriptors_and_memory_stay_as_they_are(smallest: Path, what: str, count: int) -> None:
    command = [sys.executable, "-c", RUNS, str(smallest), what, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=190)
    assert (done.returncode, done.stderr) == (0, "")
    descriptors, kib = map(int, done.stdout.split())
    assert descriptors == 0
    assert kib < 1024

"""``compare startup``: it runs, its data is whole, and its floor is honest. No figure is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.compare import contenders
from minicontainer.compare.contenders import LIBEXEC
from minicontainer.linux.cgroup import Cgroup

pytestmark = pytest.mark.needs("root", "cgroup2")

# What the library's side of the clone does beyond the floor's, each once: checks of ROOTFS, who asks, an id, the
# lock that tells a live owner, and the caller's dumpable flag and memory, which the child's could change.
LIBRARY_ALONE = {"newfstatat", "faccessat2", "geteuid", "getegid", "getrandom", "getpid", "flock", "prctl", "getrusage"}


@pytest.fixture
def small_rootfs(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pause"
    program.write_bytes(Path(LIBEXEC, "pause").read_bytes())
    program.chmod(0o755)
    return tmp_path


def traced(command: list[str], trace: Path) -> tuple[list[str], list[str]]:
    """The system calls of the last of three containers: (the parent's, from the cgroup to its removal; the child's)."""
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), *command], input="\n\n\n", text=True, check=True, capture_output=True
    )
    lines = [line.split(maxsplit=1) for line in trace.read_text(encoding="utf-8", errors="replace").splitlines()]
    parent = lines[0][0]
    last = [pid for pid, _ in lines if pid != parent][-1]
    calls = [(pid, m[1]) for pid, text in lines if (m := re.match(r"(\w+)\(", text))]
    begins = [i for i, (pid, name) in enumerate(calls) if pid == parent and name == "mkdirat"][-1]
    ends = [i for i, (pid, name) in enumerate(calls) if pid == parent and name == "unlinkat"][-1]
    ours = [name for pid, name in calls[begins : ends + 3] if pid == parent]
    return ours, [name for pid, name in calls if pid == last]


def test_the_floor_makes_the_librarys_calls(small_rootfs: Path, tmp_path: Path) -> None:
    """The child's are the same, in the same order; the parent's are, but for what is listed above."""
    library = [sys.executable, "-m", "minicontainer.compare.worker", str(small_rootfs), "/bin/pause", "0"]
    with Cgroup.create("test-floor") as parent:
        floor = contenders.floor_command(str(small_rootfs), "/bin/pause", parent.path)
        floor_parent, floor_child = traced(floor, tmp_path / "floor.trace")
        parent.remove()
    library_parent, library_child = traced(library, tmp_path / "library.trace")
    assert len(library_child) > 150
    assert library_child == floor_child
    assert [name for name in library_parent if name not in LIBRARY_ALONE] == floor_parent
    assert len(library_parent) - len(floor_parent) <= 8


def test_a_small_run_gives_whole_data(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "minicontainer", "compare", "startup", "-n", "3", "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    data = json.loads(target.read_text(encoding="utf-8"))
    names = [row["name"] for row in data["rows"]]
    assert names[:2] == ["floor", "library"]
    assert "command line" in names
    assert all(len(samples) == 3 and min(samples) > 0 for samples in data["samples_ns"].values())
    assert data["rows"][0]["ratio"] == 1
    assert set(data["machine"]) >= {"processor", "kernel", "cgroups", "load average"}
    for name in names:
        assert re.search(rf"^{re.escape(name)} +3 ", done.stdout, re.MULTILINE)
    for name, reason in data["unable"].items():
        assert f"not measured: {name}: {reason}" in done.stdout

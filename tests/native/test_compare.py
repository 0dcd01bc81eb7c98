"""``compare startup``: it runs, its data is whole, and its floor is honest. No figure is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.compare import contenders, startup
from minicontainer.native import LIBEXEC

pytestmark = pytest.mark.needs("root", "cgroup2")

# What the library's side does beyond the floor's, in this order: whether the user is the same; whether the kept init is
# still the one that was made; and the caller's dumpable flag (before and after) and memory, which the child's could
# change.
LIBRARY_ALONE = ["geteuid", "newfstatat", "prctl", "getrusage", "prctl"]


@pytest.fixture
def small_rootfs(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pause"
    program.write_bytes(Path(LIBEXEC, "pause").read_bytes())
    program.chmod(0o755)
    return tmp_path


FDS = (  # of these the first argument is one
    "fsconfig fsmount move_mount mount_setattr open_tree mkdirat mknodat fchdir openat write dup3 close ioctl"
).split()


def plain(call: str) -> str:
    """A call as strace writes it, but for what may differ: descriptors, addresses, the result."""
    call = re.sub(rf"^({'|'.join(FDS)})\(\d+", r"\1(fd", call)
    call = re.sub(r'^sethostname\("[0-9a-f]{12}"', 'sethostname("id"', call)
    call = re.sub(r'^(symlinkat\("[^"]*"|move_mount\(fd, ""), \d+', r"\1, fd", call)
    return re.sub(r"\b0x[0-9a-f]{6,}", "address", re.split(r"\) += ", call)[0])


def whole(lines: list[list[str]]) -> list[list[str]]:
    """Calls that another's interrupted are put together, where they begin."""
    begun: dict[str, list[str]] = {}
    made = []
    for pid, text in lines:
        if rest := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            begun.pop(pid)[1] += rest[1]
            continue
        made.append([pid, text.removesuffix(" <unfinished ...>")])
        if made[-1][1] != text:
            begun[pid] = made[-1]
    return made


def traced(command: list[str], trace: Path) -> tuple[list[str], list[str]]:
    """The system calls of the last of three containers: the names of the parent's, from its id to its removal; and
    the child's with their arguments, up to its exec."""
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), *command], input="\n\n\n", text=True, check=True, capture_output=True
    )
    lines = whole([line.split(maxsplit=1) for line in trace.read_text("utf-8", "replace").splitlines()])
    parent = lines[0][0]
    last = [pid for pid, _ in lines if pid != parent][-1]
    made = [(pid, m[1], text) for pid, text in lines if (m := re.match(r"(\w+)\(", text))]
    calls = [(pid, name) for pid, name, _ in made]
    begins = [i for i, (pid, name) in enumerate(calls) if pid == parent and name == "getrandom"][-1]
    ends = [i for i, (pid, name) in enumerate(calls) if pid == parent and name == "unlinkat"][-1]
    ours = [name for pid, name in calls[begins : ends + 4] if pid == parent]
    theirs = [plain(text) for pid, _, text in made if pid == last]
    return ours, theirs[: 1 + max(i for i, call in enumerate(theirs) if call.startswith("execve("))]


@pytest.mark.needs("true-root")
def test_the_floor_makes_the_librarys_calls(small_rootfs: Path, tmp_path: Path) -> None:
    """The child's are the same with the same arguments, in the same order; the parent's are, but for what is listed
    above."""
    library = [sys.executable, "-m", "minicontainer.compare.worker", str(small_rootfs), "/bin/pause", "0", "bare"]
    floor = contenders.floor_command(str(small_rootfs), "/bin/pause", startup.home())
    floor_parent, floor_child = traced(floor, tmp_path / "floor.trace")
    library_parent, library_child = traced(library, tmp_path / "library.trace")
    assert len(library_child) > 150
    assert library_child == floor_child
    assert [name for name in library_parent if name not in LIBRARY_ALONE] == floor_parent
    assert [name for name in library_parent if name in LIBRARY_ALONE] == LIBRARY_ALONE


def compare(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minicontainer", "compare", "startup", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_small_run_gives_whole_data(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    done = compare("-n", "3", "--meta", target)
    assert done.returncode == 0, done.stderr
    data = json.loads(target.read_text(encoding="utf-8"))
    names = [row["name"] for row in data["rows"]]
    assert names[:3] == ["floor", "library-bare", "library"]
    assert re.search(r"^library - library-bare: -?[0-9]+ us", done.stdout, re.MULTILINE)
    assert {*startup.OURS} - {*data["unable"]} <= set(names)
    assert {startup.ONE, startup.MANY} <= set(data["samples_ns"])
    assert len(re.findall(r"^(kept|MISSED|not measured): .*at most", done.stdout, re.MULTILINE)) == len(startup.TARGETS)
    assert all(len(samples) in (1, 3) and min(samples) > 0 for samples in data["samples_ns"].values())
    assert data["rows"][0]["ratio"] == 1
    assert set(data["machine"]) >= {"processor", "kernel", "cgroups", "load average"}
    for name in names:
        assert re.search(rf"^{re.escape(name)} +3 ", done.stdout, re.MULTILINE)
    for name, reason in data["unable"].items():
        assert f"not measured: {name}: {reason}" in done.stdout


def test_contenders_can_be_chosen_and_run_in_a_root_file_system_of_ones_own(rootfs: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    done = compare("-n", "2", "--only", "library-bare", "--rootfs", rootfs, "--meta", target)
    assert done.returncode == 0, done.stderr
    data = json.loads(target.read_text(encoding="utf-8"))
    assert list(data["samples_ns"]) == ["floor", "library-bare"]
    assert list(data["paired"]) == ["library-bare / floor"]
    assert data["program"] == "/bin/true"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "nobody"), "--only nobody: is no contender (floor, library-bare"),
        (("--rootfs", "/nowhere"), "/nowhere: no such directory"),
        (("--meta", "/nowhere/figures"), "/nowhere"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(words: tuple[str, ...], said: str) -> None:
    done = compare(*words)
    assert done.returncode == 125
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout

"""``compare boot``: it runs, its data is whole, and its floors are honest. No figure is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.compare import boot
from minicontainer.compare.bootworker import PYTHON_PORT

pytestmark = pytest.mark.needs("kvm")

# What the library makes between the floor's calls: its thread lets itself be kicked (csrc/kvm/vcpu.c).
LIBRARY_ALONE = {"rt_sigprocmask", "gettid"}
MEMORY = 2 << 20


def traced(command: list[str], trace: Path) -> list[str]:
    """The system calls of the last of three machines, from the mapping of its memory to its end, as strace writes them
    but for what may differ: descriptors, addresses, results."""
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), *command], input="\n\n\n", text=True, check=True, capture_output=True
    )
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text(encoding="utf-8", errors="replace").splitlines()]
    begins = [i for i, line in enumerate(lines) if line.startswith(f"mmap(NULL, {MEMORY}, ")][-1]
    ends = [i for i, line in enumerate(lines) if re.match(rf"munmap\(0x\w+, {MEMORY}\)", line)][-1]
    return [plain(line) for line in lines[begins : ends + 1] if not is_allocators(line)]


def is_allocators(call: str) -> bool:
    """Python's own memory comes and goes when it likes."""
    sizes = re.match(r"mmap\(NULL, (\d+), .*MAP_ANONYMOUS|munmap\(0x\w+, (\d{6,})\)", call)
    return call.startswith(("brk(", "madvise(")) or bool(sizes and int(sizes[1] or sizes[2]) != MEMORY)


def plain(call: str) -> str:
    call = re.split(r"\) += ", call)[0]
    call = re.sub(r"^(\w+)\(\d+(?=[,)])", r"\1(fd", call)
    call = re.sub(r"MAP_SHARED, \d+", "MAP_SHARED, fd", call)
    return re.sub(r"\b0x[0-9a-f]{9,}", "address", call)


def test_the_floor_makes_the_librarys_calls(tmp_path: Path) -> None:
    """The same with the same arguments, in the same order, but for what is listed above."""
    floor = traced(boot.floor_command(boot.write_cpuid(str(tmp_path))), tmp_path / "floor.trace")
    library = traced(boot.worker_command("boot", "hello", 0), tmp_path / "library.trace")
    assert sum("KVM_RUN" in call for call in floor) > 10
    assert [call for call in library if call.split("(")[0] not in LIBRARY_ALONE] == floor
    assert len(library) - len(floor) == len(LIBRARY_ALONE)


@pytest.mark.parametrize("port", [boot.SCRATCH_PORT, PYTHON_PORT])
def test_the_bare_loop_has_as_many_exits_as_the_librarys(tmp_path: Path, port: int) -> None:
    floor = traced(boot.floor_command(boot.write_cpuid(str(tmp_path)), "30", str(port)), tmp_path / "floor.trace")
    library = traced(boot.worker_command("exits", "exits", 30, port), tmp_path / "library.trace")
    counts = [sum("KVM_RUN" in call for call in calls) for calls in (floor, library)]
    assert counts == [2 + 30 + 1] * 2  # what it is to do, that, HLT


def compare(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minicontainer", "compare", "boot", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_small_run_gives_whole_data(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    names = [word for name in boot.NAMES if name != boot.LARGE for word in ("--only", name)]
    done = compare("-n", "2", *names, "--exits", "10", "--machines", "3", "--meta", target)
    assert done.returncode == 0, done.stderr
    data = json.loads(target.read_text(encoding="utf-8"))
    assert list(data["boot"]) == ["create", "first exit", "total"]
    assert list(data["samples_ns"]["total"]) == ["floor", "library", "command-line"]
    assert [row["name"] for row in data["exits"]["rows"]] == ["exits-bare", "exits-in-c", "exits-in-python"]
    assert all(
        len(numbers) == 2 and min(numbers) > 0 for part in data["samples_ns"].values() for numbers in part.values()
    )
    for name in ("floor", "library"):
        create, first, total = (data["samples_ns"][part][name] for part in data["boot"])
        assert all(a < b < c for a, b, c in zip(create, first, total, strict=True))
    assert data["idle"]["machines"] == 3
    assert data["idle"]["bytes"]["rss"] > 0
    for what in [*data["boot"], "one exit"]:
        assert re.search(rf"^{what} .* x floor$", done.stdout, re.MULTILINE)
    assert "3 idle machines in one process" in done.stdout
    assert re.search(r"^(kept|MISSED): library / floor [0-9.]+ \(at most 1.25\)$", done.stdout, re.M)
    assert not data["unable"]


def test_what_is_measured_can_be_chosen(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    done = compare("-n", "1", "--only", "exits-in-c", "--exits", "5", "--machines", "0", "--meta", target)
    assert done.returncode == 0, done.stderr
    data = json.loads(target.read_text(encoding="utf-8"))
    assert list(data["samples_ns"]["exit"]) == ["exits-bare", "exits-in-c"]
    assert not data["boot"]
    assert not data["idle"]
    assert list(data["exits"]["differences_us"]) == ["exits-in-c - exits-bare"]


def test_each_kind_has_its_floor() -> None:
    assert boot.chosen(boot.NAMES) == list(boot.NAMES)
    assert boot.chosen(["library"]) == ["floor", "library"]
    assert boot.chosen(["command-line", "exits-in-python"]) == [
        "floor",
        "command-line",
        "exits-bare",
        "exits-in-python",
    ]


def test_more_machines_than_descriptors_are_not_measured() -> None:
    done = compare("-n", "1", "--only", "floor", "--machines", "1000000000")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^not measured: idle: 1000000000 machines need 3000000064 descriptors", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "nobody"), "--only nobody: is no contender (floor, library"),
        (("--meta", "/nowhere/figures"), "/nowhere"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(words: tuple[str, ...], said: str) -> None:
    done = compare(*words)
    assert done.returncode == 125
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout

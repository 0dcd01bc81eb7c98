"""Limits of a compiled container: enforced, or refused where the host cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from box import refusal
from compiling import Compiler, run

pytestmark = pytest.mark.needs("root")
EATER = "head -c 200m /dev/zero | tail"


@pytest.mark.needs("cgroup-memory")
def test_memory(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", EATER, options=["-m", "32m", "--memory-swap", "32m"])
    done = run(file)
    assert done.returncode == 137
    assert done.stderr == "minicontainer: --memory 33554432: the container ran out of memory and was killed\n"
    shown = compiler.write("cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.oom.group", options=["-m", "32m"])
    assert run(shown).stdout == "33554432\n1\n"


@pytest.mark.needs("cgroup-memory")
def test_one_process_alone(compiler: Compiler) -> None:
    file = compiler.write(
        "sh", "-c", f"({EATER}); echo left", options=["-m", "32m", "--memory-swap", "32m", "--no-oom-group"]
    )
    done = run(file)
    assert (done.returncode, done.stdout) == (0, "left\n")


@pytest.mark.needs("cgroup-pids")
def test_processes(compiler: Compiler) -> None:
    script = "cat /sys/fs/cgroup/pids.max; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done"
    done = run(compiler.write("sh", "-c", script, options=["--pids-limit", "5"]))
    assert done.stdout == "5\n"
    assert "fork" in done.stderr
    assert run(compiler.write("cat", "/sys/fs/cgroup/pids.max")).stdout == "2048\n"
    assert run(compiler.write("cat", "/sys/fs/cgroup/pids.max", options=["--pids-limit", "-1"])).stdout == "max\n"


@pytest.mark.needs("cgroup-cpu")
def test_processors(compiler: Compiler) -> None:
    files = ["/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu.weight"]
    done = run(compiler.write("cat", *files, options=["--cpus", "0.5", "--cpu-shares", "1024"]))
    assert done.stdout == "50000 100000\n39\n"


@pytest.mark.needs("cgroup-cpuset")
def test_a_set_of_processors(compiler: Compiler) -> None:
    file = compiler.write("grep", "Cpus_allowed_list", "/proc/self/status", options=["--cpuset-cpus", "0"])
    assert run(file).stdout.split() == ["Cpus_allowed_list:", "0"]


def test_a_limit_is_enforced_or_refused(compiler: Compiler) -> None:
    """What run says of it is said when it is compiled."""
    for options in (["-m", "64m"], ["--pids-limit", "9"], ["--cpus", "0.5"]):
        words = [*options, compiler.rootfs, "true"]
        expected = compiler._run("run", *words)
        done = compiler._run("compile", "-o", compiler.directory / "limited", *words)
        assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr)


def test_a_controller_that_has_gone(compiler: Compiler, tmp_path: Path) -> None:
    """A limit that could be enforced at compile time and cannot be now is no limit."""
    file = compiler.write("true")
    assert run(file).returncode == 0
    done = compiler._run("compile", "-o", tmp_path / "nonsense", "--cpuset-cpus", "4000", compiler.rootfs, "true")
    refusal(done, says=["4000"])

"""Limits on the command line: enforced where the controllers are, else refused with the reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from abilities import why_not
from box import Box

pytestmark = pytest.mark.needs("root", "cgroup2")


@pytest.mark.parametrize(
    ("option", "value", "controller"),
    [
        ("--memory", "64m", "memory"),
        ("--cpus", "0.5", "cpu"),
        ("--cpu-shares", "512", "cpu"),
        ("--cpuset-cpus", "0", "cpuset"),
        ("--pids-limit", "20", "pids"),
        ("--blkio-weight", "100", "io"),
    ],
)
def test_a_limit_is_kept_or_refused(box: Box, option: str, value: str, controller: str) -> None:
    """Never ignored: where the controller is not to be had, that is said, and what to do."""
    missing = why_not(f"cgroup-{controller}")
    done = box.run("echo", "ran", options=[option, value])
    if not missing and done.returncode == 0:
        assert done.stdout == "ran\n"
        return
    assert done.returncode == 125
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert option in done.stderr
    assert missing == "" or controller in done.stderr
    assert "(" in done.stderr  # the remedy


def test_no_limit_needs_no_controller(box: Box) -> None:
    assert box.sh("echo ran", "--pids-limit", "-1") == "ran"


def eats(megabytes: int) -> str:
    """A shell script that holds so much memory."""
    return f"x=$(head -c {megabytes << 20} /dev/zero | tr '\\0' x); echo held"


@pytest.mark.needs("cgroup-memory")
def test_out_of_memory(box: Box, tmp_path: Path) -> None:
    """Exit code 137, and the reason in the record and on stderr."""
    options = ["-m", "32m", "--memory-swap", "32m", "--meta", tmp_path / "meta"]
    box.refused("sh", "-c", eats(100), options=options, code=137, says=["--memory 33554432", "out of memory"])
    meta = json.loads((tmp_path / "meta").read_text(encoding="utf-8"))
    assert (meta["reason"], meta["exit_signal"]) == ("oom", 9)
    assert 16 << 20 < meta["usage"]["memory_peak"] <= 32 << 20


@pytest.mark.needs("cgroup-memory")
def test_within_its_memory(box: Box) -> None:
    options = ["-m", "128m", "--memory-reservation", "16m", "--memory-swap", "-1"]
    assert box.sh(eats(20), *options) == "held"


@pytest.mark.needs("cgroup-memory")
def test_what_the_container_sees_of_its_limits(box: Box) -> None:
    script = "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low"
    options = ["-m", "64m", "--memory-swap", "80m", "--memory-reservation", "8m"]
    assert box.sh(script, *options).split() == [str(n << 20) for n in (64, 16, 8)]


@pytest.mark.needs("cgroup-pids")
@pytest.mark.parametrize("init", [[], ["--init"]], ids=["plain", "init"])
def test_a_fork_bomb(box: Box, tmp_path: Path, init: list[str]) -> None:
    """It is held, and ended by the timeout with all of its processes."""
    options = ["--pids-limit", "20", "--timeout", "3", "--meta", tmp_path / "meta", *init]
    done = box.run("sh", "-c", "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 100", options=options)
    assert done.returncode == 124
    usage = json.loads((tmp_path / "meta").read_text(encoding="utf-8"))["usage"]
    assert usage["pids_peak"] is None or usage["pids_peak"] <= 20


@pytest.mark.needs("cgroup-cpu")
def test_cpus(box: Box, tmp_path: Path) -> None:
    """A fifth of a CPU for a busy loop of two seconds."""
    options = ["--cpus", "0.2", "--timeout", "2", "--meta", tmp_path / "meta"]
    assert box.run("sh", "-c", "while :; do :; done", options=options).returncode == 124
    usage = json.loads((tmp_path / "meta").read_text(encoding="utf-8"))["usage"]
    assert usage["cputime"] < 0.35 * usage["walltime"]
    assert box.sh("cat /sys/fs/cgroup/cpu.max", "--cpus", "1.5").split() == ["150000", "100000"]
    assert box.sh("cat /sys/fs/cgroup/cpu.weight", "--cpu-shares", "1024") == "39"


@pytest.mark.needs("cgroup-cpuset")
def test_cpuset(box: Box) -> None:
    script = "grep Cpus_allowed_list /proc/self/status | cut -f2; nproc"
    assert box.sh(script, "--cpuset-cpus", "0") == "0\n1"
    box.refused("true", options=["--cpuset-cpus", "99"], says=["--cpuset-cpus 99", "available"])


@pytest.mark.needs("cgroup-io", "disk")
def test_rates_of_a_device(box: Box, tmp_path: Path) -> None:
    disk = os.environ["RIG_DISK"]
    device = os.stat(disk).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    options = ["--device-write-bps", f"/dev/{name}:1m", "--device-read-iops", f"/dev/{name}:100"]
    told = box.sh("cat /sys/fs/cgroup/io.max", *options)
    assert told.split()[:1] == [f"{os.major(device)}:{os.minor(device)}"]
    assert {"wbps=1048576", "riops=100"} <= set(told.split())


def test_rates_of_what_is_no_disk(box: Box) -> None:
    box.refused("true", options=["--device-read-bps", "/dev/null:1m"], says=["--device-read-bps"])


@pytest.mark.needs("cgroup-pids")
@pytest.mark.parametrize(
    ("options", "most"), [([], "2048"), (["--pids-limit", "-1"], "max"), (["--pids-limit", "7"], "7")]
)
def test_processes_are_bounded_by_default(box: Box, options: list[str], most: str) -> None:
    assert box.sh("cat /sys/fs/cgroup/pids.max", *options) == most

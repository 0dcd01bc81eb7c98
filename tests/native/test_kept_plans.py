"""``run`` with a plan that an earlier run has kept: it does, shows and says what it does without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "cgroup2")

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Done]:
    """``minicontainer run`` with caches of its own: the first one stores the bundle, the second one the plan."""
    env = {**os.environ, "XDG_CACHE_HOME": f"{tmp_path}/cache", "PYTHONPYCACHEPREFIX": f"{tmp_path}/bytecode"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def one(*words: str | Path) -> Done:
        command = [sys.executable, "-m", "minicontainer", "run", *map(str, words)]
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    return one


def plans(tmp_path: Path) -> dict[str, int]:
    """The files, with the inode that each new one changes."""
    try:
        return {entry.name: entry.inode() for entry in os.scandir(tmp_path / "cache/minicontainer/plans")}
    except FileNotFoundError:
        return {}


def steps(timeline: str) -> list[str]:
    """The steps of a timeline, without times, numbers and ids; without the lock, which the first start of all takes by
    another way."""
    lines = re.findall(r"^ *[\d.]+ +[\d.]+ +(?:parent|child) +(.*)$", timeline, re.MULTILINE)
    return [re.sub(r"[0-9a-f]{12}(-[0-9a-f]{8})?|\d+", "N", line) for line in lines if "F_OFD_SETLK" not in line]


def test_the_third_run_takes_the_plan_of_the_second(run: Callable[..., Done], tmp_path: Path, rootfs: Path) -> None:
    first = run("--explain", rootfs, "echo", "1")
    assert plans(tmp_path) == {}
    second = run("--explain", rootfs, "echo", "2")
    kept = plans(tmp_path)
    assert len(kept) == 1
    third = run("--explain", rootfs, "echo", "3")
    assert plans(tmp_path) == kept
    assert [done.stdout for done in (first, second, third)] == ["1\n", "2\n", "3\n"]
    assert len(steps(first.stderr)) > 100
    assert sorted(steps(first.stderr)) == sorted(steps(second.stderr)) == sorted(steps(third.stderr))


def test_an_error_names_the_step_of_a_kept_plan(run: Callable[..., Done], tmp_path: Path, rootfs: Path) -> None:
    said = [run("-w", "/nowhere", rootfs, "true")]
    for _ in range(2):
        assert run(rootfs, "true").returncode == 0
    kept = plans(tmp_path)
    said += [run("-w", "/nowhere", rootfs, "true") for _ in range(2)]
    assert len(kept) == 1
    assert plans(tmp_path) == kept
    assert {(done.returncode, done.stderr) for done in said} == {(said[0].returncode, said[0].stderr)}
    assert "/nowhere" in said[0].stderr

"""Detached containers and the limits that the kernel enforces: they need cgroup v2 controllers, so mostly the rig."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import until

import minicontainer as mc

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("cgroup-memory"), pytest.mark.needs("cgroup-pids")]

Make = Callable[..., mc.Container]
MIB = 2**20
EATER = "x=x; while :; do x=$x$x; done"


@pytest.fixture
def make(rootfs: Path) -> Iterator[Make]:
    made: list[mc.Container] = []

    def start(*args: str, **options: Any) -> mc.Container:
        made.append(mc.Container.start(args, rootfs=str(rootfs), **options))
        return made[-1]

    yield start
    for container in made:
        container.remove(force=True)


def test_a_container_that_eats_too_much(make: Make) -> None:
    c = make("sh", "-c", EATER, limits=mc.Limits(memory="16M"))
    assert c.wait(60) == 137
    state = c.state
    assert (state.oom_killed, state.reason) == (True, "oom")


@pytest.mark.parametrize("group", [None, False])
def test_out_of_memory_all_of_it_ends_or_the_process(make: Make, group: bool | None) -> None:
    """docker's way is asked for; the shell then goes on, and its end is its own. update changes it."""
    script = f"(:; {EATER}); echo went on; exit 3"
    c = make("sh", "-c", script, limits=mc.Limits(memory="16M", oom_group=group))
    assert c.wait(60) == (137 if group is None else 3)
    assert (c.state.oom_killed, c.state.reason) == (True, "oom" if group is None else "exited")
    assert [e.data for e in c.logs() if e.data == b"went on\n"] == ([] if group is None else [b"went on\n"])
    c.update(oom_group=group is False)
    c.start_again()
    assert c.wait(60) == (3 if group is None else 137)


def test_it_is_restarted_into_the_same_limits(make: Make) -> None:
    c = make("sh", "-c", EATER, limits=mc.Limits(memory="16M"), restart="on-failure:1")
    assert c.wait(60) == 137
    assert (c.state.restarts, c.state.oom_killed) == (1, True)


def test_a_fork_bomb_ends_with_its_container(make: Make) -> None:
    c = make("sh", "-c", "b() { b | b & }; echo ready; b; while :; do sleep 1; done", limits=mc.Limits(pids=50))
    until(lambda: c.stats().pids >= 45, 180)
    assert c.stats().pids_max == 50
    c.stop(0.1)
    assert c.state.exit_code == 137
    assert c.open_cgroup() is None


def test_limits_change_while_it_runs(make: Make) -> None:
    c = make("sleep", "1000", limits=mc.Limits(memory="64M"))
    assert c.stats().memory_max == 64 * MIB
    c.update(memory="32M", pids=20)
    assert (c.stats().memory_max, c.stats().pids_max) == (32 * MIB, 20)
    assert (c.config.spec.limits.memory, c.config.spec.limits.pids) == (32 * MIB, 20)
    c.restart(0)
    assert (c.stats().memory_max, c.stats().pids_max) == (32 * MIB, 20)
    with pytest.raises(mc.SpecError, match="memory"):
        c.update(memory="1")


def test_what_is_used_is_told(make: Make) -> None:
    c = make("sh", "-c", "while :; do :; done", limits=mc.Limits(memory="64M"))
    first = c.stats()
    assert first.memory is not None
    assert 0 < first.memory < 64 * MIB
    until(lambda: (c.stats().cputime or 0) > (first.cputime or 0) + 0.1)
    assert c.stats().pids == 1


LARGE_CALLER = """
import sys
import minicontainer as mc
held = bytearray(2 << 30)
held[::65536] = b"x" * len(held[::65536])
c = mc.Container(sys.argv[1])
ended = 0
for _ in range(30):
    try:
        ended += c.run(["sh", "-c", "x=x; while :; do x=$x$x; done"], stdin=mc.DEVNULL).returncode != 0
    except mc.Error as e:
        ended += 1
    if not c.state.is_running:
        break
print("alive", ended > 0)
"""


def test_a_large_caller_lives_when_what_it_starts_inside_does_not(make: Make) -> None:
    """memory.oom.group takes all of the cgroup: never the process that started one of them."""
    c = make("sh", "-c", "while :; do sleep 1; done", limits=mc.Limits(memory="12M"))
    done = subprocess.run(
        [sys.executable, "-c", LARGE_CALLER, c.id], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "alive True\n"), done.stderr

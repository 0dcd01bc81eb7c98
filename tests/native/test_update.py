"""``update``: what it says where a limit cannot be had is what ``run`` says, and true; else the limit is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest
from box import Box, Done, refusal

import minicontainer as mc
from minicontainer.linux.cgroup import hierarchy

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("cgroup2")]

Make = Callable[..., mc.Container]
Run = Callable[..., Done]
MIB = 2**20
SLEEP = ("sleep", "1000")


class Limit(NamedTuple):
    """An option, what enforces it, and what is in that file then."""

    option: str
    value: str
    controller: str
    file: str
    then: str


LIMITS = [
    Limit("--memory", "64m", "memory", "memory.max", str(64 * MIB)),
    Limit("--memory-reservation", "8m", "memory", "memory.low", str(8 * MIB)),
    Limit("--cpus", "0.5", "cpu", "cpu.max", "50000 100000"),
    Limit("--cpu-shares", "262144", "cpu", "cpu.weight", "10000"),
    Limit("--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "0"),
    Limit("--pids-limit", "33", "pids", "pids.max", "33"),
    Limit("--blkio-weight", "1000", "io", "io.weight", "default 10000"),
]


def read(container: mc.Container, name: str) -> str:
    cgroup = container.open_cgroup()
    assert cgroup is not None
    with cgroup:
        return cgroup.read(name).strip()


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.option)
def test_a_limit_is_kept_or_refused_for_the_reason_of_run(
    minicontainer_cli: Run, box: Box, make: Make, limit: Limit
) -> None:
    """The container was started without one, so its cgroup has got no controller for it yet."""
    option, value, controller, *_ = limit
    running = make(*SLEEP)
    words = ("update", option, value, running.id)
    updated = minicontainer_cli(*words)
    ran = box.run("true", options=[option, value])
    if ran.returncode == 0:
        assert (updated.returncode, updated.stdout, updated.stderr) == (0, f"{running.id}\n", "")
        assert read(running, limit.file) == limit.then
        return
    assert updated.stderr == ran.stderr
    refusal(updated, 1, [f"{option} {value}: "])
    missing = controller not in hierarchy().controllers
    assert (f"the {controller} controller is" in ran.stderr) == missing
    assert running.config.spec.limits == mc.Limits()
    running.stop(0)
    if missing:
        assert minicontainer_cli(*words).stderr == ran.stderr
        field = option[2:].replace("-", "_").removesuffix("_limit")
        with pytest.raises(mc.UnsupportedError, match=f"the {controller} controller is"):
            running.update(**{field: value})


def test_of_several_limits_the_one_that_cannot_be_had_is_named(box: Box, make: Make) -> None:
    """An option is told of its own controller, in whatever order they are looked at."""
    limits = {limit.controller: limit for limit in reversed(LIMITS)}
    absent = sorted(set(limits) - hierarchy().controllers)
    options = [word for limit in limits.values() for word in (limit.option, limit.value)]
    if not absent:
        refused = {"io": "no policy on this host weighs I/O"}
        done = box.run("true", options=options)
        assert done.returncode == 0 or refused["io"] in refusal(done, 125, ["--blkio-weight 1000: "])
        return
    first = limits[absent[0]]
    says = [f"{first.option} {first.value}: the {first.controller} controller is"]
    for seed in range(5):
        box.refused("true", options=options, says=says, env={**os.environ, "PYTHONHASHSEED": str(seed)})


def test_to_change_nothing_is_a_mistake(minicontainer_cli: Run, make: Make) -> None:
    refusal(minicontainer_cli("update", make(*SLEEP).id), 125, ["nothing to change", "--restart", "update --help"])


@pytest.mark.needs("cgroup-memory")
def test_what_one_controller_enforces_is_seen_together(make: Make) -> None:
    c = make(*SLEEP, limits=mc.Limits(memory="64M", memory_swap=-1))
    c.update(memory="32M")
    assert (read(c, "memory.max"), read(c, "memory.swap.max")) == (str(32 * MIB), "max")
    c.update(memory_swap="48M")
    assert (read(c, "memory.max"), read(c, "memory.swap.max")) == (str(32 * MIB), str(16 * MIB))
    with pytest.raises(mc.SpecError, match=r"memory_swap .*below memory"):
        c.update(memory="64M")


@pytest.mark.needs("cgroup-pids")
def test_a_limit_is_lifted(make: Make) -> None:
    c = make(*SLEEP, limits=mc.Limits(pids=20))
    c.update(pids=-1)
    assert read(c, "pids.max") == "max"

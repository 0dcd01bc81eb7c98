"""A container in the foreground that has a name, a label, a file of its id or a network: others know of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from box import CLI, Operator, line_of, refusal, started, until

import minicontainer as mc
from minicontainer import events, runtime

pytestmark = pytest.mark.needs("root")

HEEDS = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(op: Operator) -> Iterator[Run]:
    """``run(OPTION..., script=...)``: ``minicontainer run`` beside us, whose program has begun."""
    with ExitStack() as stack:

        def start(*options: str, script: str = HEEDS) -> subprocess.Popen[str]:
            process = stack.enter_context(started("run", *options, op.rootfs, "sh", "-c", script))
            assert line_of(process) == "ready"
            return process

        yield start


def kept() -> list[str]:
    """What the state directory has of containers."""
    found = [Path(runtime.directory(), name) for name in ("containers", "names")]
    return [str(entry) for place in found if place.is_dir() for entry in place.iterdir()]


def test_it_is_listed_and_entered(run: Run, op: Operator, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    process = run("--name", "front", "--label", "a=b", "--cidfile", str(cidfile))
    c = cidfile.read_text(encoding="ascii")
    op.ids.append(c)
    (row,) = op.rows("--filter", "label=a=b", "--filter", "name=^front$")
    assert (row["ID"], row["Names"], row["State"]) == (c, "front", "running")
    assert op.out("exec", "front", "hostname") == "front\n"
    assert op.inspect(c[:12])["HostConfig"]["AutoRemove"] is True
    assert "sh -c" in op.out("top", "front")
    assert op.out("port", "front") == ""
    op.out("cp", "front:/etc/passwd", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").exists()
    op.out("pause", "front")
    assert op.rows()[0]["State"] == "paused"
    op.out("unpause", "front")
    assert mc.Container.find("front").run(["echo", "in"], capture_output=True).stdout == b"in\n"
    assert c in [one.id for one in mc.containers()]
    assert op.out("stop", "front") == "front\n"
    assert process.wait(120) == 7
    op.ids.clear()
    happened = [event.action for event in events.events(follow=False) if event.id == c]
    assert happened[:6] == "create start pause unpause kill die".split()
    assert sorted(happened[6:]) == ["destroy", "stop"]  # by two processes
    assert kept() == []


def test_it_is_waited_for_and_killed(run: Run, op: Operator) -> None:
    for words, code in (
        (("stop", "-t", "0.1"), 137),
        (("kill",), 137),
        (("kill", "-s", "TERM"), 7),
        (("rm", "-f"), 137),
    ):
        script = HEEDS if "TERM" in words else "echo ready; exec sleep 1000"  # which ignores the stop signal
        process = run("--name", "front", script=script)
        with subprocess.Popen([*CLI, "wait", "front"], stdout=subprocess.PIPE, text=True) as waiter:
            until(partial(waits, waiter.pid))
            op.out(*words, "front")
            assert process.wait(120) == code
            assert waiter.communicate(timeout=120)[0] == f"{code}\n"
        assert kept() == []


def is_empty(cgroup: Any) -> bool:
    return cgroup is None or not cgroup.populated


def waits(pid: int) -> bool:
    """Whether a process has the state of a container open, and sleeps."""
    try:
        opened = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(path.endswith("/state") for path in opened) and "poll" in Path(f"/proc/{pid}/wchan").read_text()


NEEDS_A_MONITOR = {
    "attach front": 125,
    "logs front": 125,
    "restart front": 1,
    "rename front other": 125,
    "update --restart always front": 1,
    "diff front": 125,
}


@pytest.mark.parametrize("words", NEEDS_A_MONITOR)
def test_what_needs_a_monitor_says_so(run: Run, op: Operator, words: str) -> None:
    process = run("--name", "front", "--ephemeral")
    code, says = NEEDS_A_MONITOR[words], f"is in the foreground of process {process.pid}"
    refusal(op.do(*words.split(), code=code), code, [says])
    refusal(op.do("rm", "front", code=1), 1, ["is running"])
    assert process.poll() is None


def test_one_whose_run_was_killed_leaves_nothing(run: Run, op: Operator) -> None:
    """The next that looks for it takes away what is there: by name, by id, in a list, or for the same name."""
    mc_id: list[str] = []
    for look in (
        lambda: refusal(op.do("exec", "front", "true", code=125), says=["front", "there is no such container"]),
        lambda: refusal(op.do("stop", mc_id[0], code=1), 1, [mc_id[0], "there is no such container"]),
        lambda: op.out("ps", "-a"),
        lambda: op.out("run", "--name", "front", str(op.rootfs), "true"),
        mc.containers,
    ):
        process = run("--name", "front")
        front = mc.Container.find("front")
        mc_id[:] = [front.id[:12]]
        cgroup = front.open_cgroup()
        process.kill()
        process.wait(120)
        until(partial(is_empty, cgroup))
        look()
        assert kept() == []
        if cgroup is not None:
            cgroup.close()


def test_a_start_that_fails_leaves_nothing(op: Operator, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    options = ("--name", "front", "--label", "a=b", "--cidfile", str(cidfile))
    refusal(op.do("run", *options, str(op.rootfs), "/none", code=127), 127, ["/none", "not found"])
    assert not cidfile.exists()
    assert kept() == []
    cidfile.touch()
    says = [f"--cidfile {cidfile}", "already exists"]
    refusal(op.do("run", *options, str(op.rootfs), "true", code=125), says=says)
    refusal(op.do("run", "--label", "=b", str(op.rootfs), "true", code=125), says=["--label =b"])
    assert kept() == []


def test_the_name_is_taken_by_one_that_can_be_named(run: Run, op: Operator) -> None:
    run("--name", "front")
    c = mc.Container.find("front")
    says = ["--name front", f"already exists (container {c.id[:12]})"]
    refusal(op.do("run", "--name", "front", str(op.rootfs), "true", code=125), says=says)
    with pytest.raises(mc.SpecError, match=f"already exists \\(container {c.id[:12]}\\)"):
        mc.run(["true"], rootfs=str(op.rootfs), name="front")


def test_one_without_a_wish_to_be_known_is_not_kept(run: Run) -> None:
    run()
    assert kept() == []

"""Containers that are made first, and started later."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from box import Operator, refusal
from supplies import Run

import minicontainer as mc
from minicontainer.container.registry import names
from minicontainer.detached import store
from minicontainer.failpoint import VARIABLE

pytestmark = pytest.mark.needs("root")


def created(op: Operator, *words: str, options: tuple[str, ...] = ()) -> str:
    """The id of a new one, which does not run."""
    op.ids.append(op.out("create", *options, str(op.rootfs), *words).strip())
    return op.ids[-1]


def test_made_and_started_later(op: Operator, tmp_path: Path) -> None:
    options = ("--name", "made", "--label", "a=b", "-e", "A=1", "--cidfile", str(tmp_path / "cid"))
    c = created(op, "sh", "-c", "echo $A; exit 3", options=options)
    assert (tmp_path / "cid").read_text() == c
    assert op.rows() == []
    (row,) = op.rows("-a", "--filter", "status=created")
    assert (row["ID"], row["Names"], row["State"], row["Status"]) == (c, "made", "created", "Created")
    state = op.inspect(c)["State"]
    assert (state["Status"], state["Running"], state["StartedAt"], state["ExitCode"]) == ("created", False, None, None)
    assert op.out("logs", "made") == ""
    assert op.out("wait", "made") == "0\n"
    assert op.out("stop", "made") == "made\n"
    for words in (["exec", "made", "true"], ["attach", "made"], ["top", "made"]):
        refusal(op.do(*words, code=125), 125, ["is not running (created)"])
    refusal(op.do("create", "--name", "made", str(op.rootfs), code=125), 125, ["name made: already exists"])
    assert op.out("start", "made") == "made\n"
    assert op.out("wait", "made") == "3\n"
    assert op.out("logs", "made") == "1\n"
    assert op.rows("-a")[0]["State"] == "exited"


def test_nothing_takes_it_for_something_left_behind(op: Operator) -> None:
    c = created(op, "true")
    assert store.Entry(c) not in store.left_behind()
    op.do("doctor", "--clean")
    op.out("prune", "-f")
    assert op.rows("-a")[0]["State"] == "created"
    assert json.loads(op.out("info", "--format", "json"))["ContainersStopped"] >= 1
    assert op.out("rename", c, "made-renamed") == ""
    op.out("update", "--restart", "on-failure:2", c)
    assert op.inspect("made-renamed")["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] == 2
    assert op.out("rm", c) == f"{c}\n"
    assert op.rows("-a") == []


@pytest.mark.parametrize("point", ["directory made", "name taken", "config written"])
def test_a_maker_that_is_killed_leaves_nothing_for_long(op: Operator, point: str) -> None:
    before = set(names.ids())
    done = op.do(
        "create", "--name", "made-never", str(op.rootfs), code=-signal.SIGKILL, env={**os.environ, VARIABLE: point}
    )
    assert done.stdout == ""
    (left,) = set(names.ids()) - before
    os.utime(store.Entry(left).path, (0, 0))  # as if it were long ago
    op.do("doctor", "--clean")
    assert set(names.ids()) == before
    created(op, "true", options=("--name", "made-never"))


def test_started_once_it_ends_as_others_do(op: Operator) -> None:
    c = created(op, "sleep", "1000", options=("--rm",))
    op.out("restart", c)
    assert op.rows()[0]["State"] == "running"
    op.out("stop", "-t", "0", c)
    assert op.rows("-a") == []


def test_what_cannot_be_is_said_when_it_is_made(op: Operator, tmp_path: Path) -> None:
    before = set(names.ids())
    refusal(op.do("create", str(tmp_path / "none"), code=125), 125, ["none: no such directory"])
    refusal(op.do("create", "-v", f"{tmp_path}/none:/x", str(op.rootfs), code=125), 125, ["bind source"])
    refusal(op.do("create", "--restart", "maybe", str(op.rootfs), code=125), 125, ["restart maybe"])
    refusal(op.do("create", "-d", str(op.rootfs), code=125), 125, ["-d"])
    assert set(names.ids()) == before


def test_a_start_that_fails_leaves_it_as_it_was(op: Operator) -> None:
    c = created(op, "/nope")
    refusal(op.do("start", c, code=1), 1, ["program /nope: not found in the container"])
    assert op.rows("-a")[0]["State"] == "created"


def test_from_python(rootfs: Path, minicontainer_cli: Run, tmp_path: Path) -> None:
    c = mc.Container.create(["sh", "-c", "exit 4"], rootfs=str(rootfs), labels={"a": "b"}, remove=False)
    try:
        assert (c.status, c.pid, dict(c.config.labels)) == ("created", 0, {"a": "b"})
        c.start_again()
        assert c.wait(60) == 4
    finally:
        c.remove(force=True)
    wrong: Callable[..., mc.Container] = mc.Container.create
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        wrong(["true"], rootfs=str(rootfs), colour="red")


def test_without_its_socket_it_is_not_started(op: Operator, minicontainer_cli: Run) -> None:
    """A container that nobody could stop."""
    box = created(op, "sleep", "1000")
    control = Path(names.detached(box), "control")
    control.mkdir()
    refusal(minicontainer_cli("start", box), code=1, says=[f"bind({control}): Address already in use"])
    control.rmdir()
    assert minicontainer_cli("start", box).returncode == 0

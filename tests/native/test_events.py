"""``events``: what happens is told by who does it, container, monitor or command, and followed without a daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from box import CLI, Operator, refusal, until

import minicontainer as mc
from minicontainer import events, runtime, volumes
from minicontainer.cli.times import rfc3339

pytestmark = pytest.mark.needs("root")


@contextmanager
def following(*words: str) -> Iterator[subprocess.Popen[str]]:
    """``events`` that has begun to listen."""
    with subprocess.Popen([*CLI, "events", *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: "inotify" in str(_targets(process.pid)))
            yield process
        finally:
            process.terminate()


def _targets(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass
    return found


def actions(identifier: str) -> list[str]:
    return [event.action for event in events.events(follow=False) if event.id == identifier]


def test_a_life_that_is_followed(op: Operator) -> None:
    with following("--filter", "container=evt", "--filter", "type=container") as process:
        assert process.stdout is not None
        c = op.run("sleep", "1000", options=("--name", "evt"))
        op.out("pause", "evt")
        op.out("unpause", "evt")
        op.out("kill", "evt")
        op.out("wait", "evt")
        lines = [process.stdout.readline() for _ in range(6)]
    form = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) container (\w+) ([0-9a-f]{64}) \((.*)\)\n"
    told = [match.groups() for line in lines if (match := re.fullmatch(form, line))]
    assert [(action, attributes) for _, action, _, attributes in told] == [
        ("create", "name=evt"),
        ("start", "name=evt"),
        ("pause", "name=evt"),
        ("unpause", "name=evt"),
        ("kill", "name=evt, signal=9"),
        ("die", "exitCode=137, name=evt"),
    ]
    assert {identifier for _, _, identifier, _ in told} == {c}
    assert sorted(when for when, *_ in told) == [when for when, *_ in told]


def test_what_is_kept(op: Operator) -> None:
    before = rfc3339(time.time_ns())
    c = op.run("sh", "-c", "exit 3")
    op.out("wait", c)
    op.out("start", c)
    op.out("wait", c)
    op.out("rename", c, "evt-named")
    op.out("update", "--restart", "on-failure:1", c)
    op.out("rm", c)
    assert actions(c) == ["create", "start", "die", "start", "die", "rename", "update", "destroy"]
    since = ("events", "--since", before, "--until", "0s", "--filter", f"container={c}")
    assert op.out(*since, "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}") == "3\n3\n"
    rows = [json.loads(line) for line in op.out(*since, "--format", "json").splitlines()]
    assert [row["Action"] for row in rows] == actions(c)
    assert op.out(*since).splitlines()[0].endswith(f" container create {c}")  # it had no attributes
    renamed = rows[5]
    assert (renamed["Type"], renamed["Actor"]["ID"]) == ("container", c)
    assert renamed["Actor"]["Attributes"] == {"name": "evt-named"}
    assert rfc3339(renamed["timeNano"]) == renamed["time"]
    assert op.out("events", "--until", before, "--since", "1h", "--filter", f"container={c}") == ""
    refusal(op.do("events", "--filter", "event", code=125), 125, ["filter event: must be KEY=VALUE, of container"])
    refusal(op.do("events", "--filter", "type=image", code=125), 125, ["type=image: must be one of container"])
    refusal(op.do("events", "--since", "soon", code=125), 125, ["since soon: is no time"])


def test_stops_and_restarts(op: Operator) -> None:
    c = op.run("sleep", "1000")
    op.out("restart", "-t", "0", c)
    op.out("stop", "-t", "0", c)
    again = ["kill", "die", "stop"]
    assert actions(c) == ["create", "start", *again, "start", "restart", *again]


def test_what_a_monitor_does_by_itself(op: Operator) -> None:
    c = op.run("sh", "-c", "exit 1", options=("--restart", "on-failure:1"))
    op.out("wait", c)
    assert actions(c) == ["create", "start", "die", "start", "die"]
    d = op.run("true", options=("--rm",))
    until(lambda: actions(d) == ["create", "start", "die", "destroy"])


def test_a_start_that_fails(op: Operator) -> None:
    begun = time.time()
    op.do("run", "-d", str(op.rootfs), "/nope", code=127)
    found = list(events.events(since=begun, follow=False))
    assert [event.action for event in found] == ["create", "destroy"]
    op.do("run", "-d", "--name", "-bad", str(op.rootfs), "true", code=125)
    assert list(events.events(since=begun, follow=False)) == found


def test_of_volumes_and_networks(op: Operator) -> None:
    begun = time.time()
    op.out("volume", "create", "evt-volume")
    volumes.remove("evt-volume")
    op.out("network", "create", "--no-ipv6", "evt-net")
    op.out("network", "rm", "evt-net")
    told = [(event.kind, event.action, event.id) for event in events.events(since=begun, follow=False)]
    assert told == [(kind, action, f"evt-{kind[:6]}") for kind, action in
                    (("volume", "create"), ("volume", "destroy"))] + [
        ("network", "create", "evt-net"), ("network", "destroy", "evt-net")]  # fmt: skip


def test_until_a_time_to_come(op: Operator) -> None:
    c = op.run("true")
    op.out("wait", c)
    told = op.out("events", "--since", "1h", "--until", "-1s", "--filter", f"container={c}", "--format", "{{.Action}}")
    assert told.split() == ["create", "start", "die"]


def test_the_file_stays_short_and_nothing_is_missed(
    rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "directory", lambda: str(tmp_path))
    monkeypatch.setattr(events, "LIMIT", 2000)
    ids = [f"{number:064x}" for number in range(50)]
    seen: list[str] = []
    with events._Follower() as reader:
        for identifier in ids:
            events.emit("container", "start", identifier, name="x")
            seen += [event.id for event in reader.read()]
    assert seen == ids
    assert sorted(os.listdir(tmp_path)) == ["events", "events.1"]
    assert sum(os.stat(tmp_path / name).st_size for name in os.listdir(tmp_path)) < 5000
    kept = [event.id for event in events.events(follow=False)]
    assert kept == ids[-len(kept) :]
    assert len(kept) > 10


def test_what_cannot_be_written_hinders_nobody(op: Operator) -> None:
    os.rename(events.path(), f"{events.path()}.kept")
    os.mkdir(events.path())
    try:
        c = op.run("sh", "-c", "exit 2")
        assert op.out("wait", c) == "2\n"
        op.out("rm", c)
    finally:
        os.rmdir(events.path())
        os.rename(f"{events.path()}.kept", events.path())


def test_lines_that_are_none() -> None:
    for line in ("", "x\n", "2026-11-28T22:52:55.1Z container die 0 ()\n", "2026-11-28T22:52:55.123456789Z a b\n"):
        assert events.parse(line) is None
    event = events.parse("2026-11-28T22:52:55.123456789Z container die 0f (exitCode=1, name=a-b.c)\n")
    assert event == (1795906375123456789, "container", "die", "0f", {"exitCode": "1", "name": "a-b.c"})
    assert event.time == pytest.approx(1795906375.123)


def test_from_python(rootfs: Path) -> None:
    c = mc.Container.create(["true"], rootfs=str(rootfs), name="evt-python")
    c.remove()
    (made, gone) = [event for event in events.events(follow=False) if event.id == c.id]
    assert (made.action, gone.action) == ("create", "destroy")
    assert made.attributes == gone.attributes == {"name": "evt-python"}

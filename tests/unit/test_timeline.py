"""Records of both sides as events, as text and as data."""

from __future__ import annotations

import errno
import json

import pytest

from minicontainer import plan as p
from minicontainer.plan import Builder, Plan, Slot
from minicontainer.plan.timeline import RECORD, Event, Timeline

MS = 1_000_000


def some_plan() -> Plan:
    b = Builder()
    b.phase = "root"
    b.add(
        p.open_tree("/srv", "OPEN_TREE_CLONE", "root"), p.mkdirat(p.FDCWD, "/dev", 0o755), p.call("close", Slot("root"))
    )
    b.phase = "execute"
    b.add(p.execve(["/bin/true"], ["true"], []))
    return b.plan()


def timeline(*records: tuple[int, int, int], started: int = 9 * MS) -> Timeline:
    parent = [
        ("cgroup", 'mkdir("/sys/fs/cgroup/x")', 1 * MS, 1 * MS + 500_000, 0),
        ("clone", "clone3(CLONE_NEWNS)", 2 * MS, 9 * MS, 77),
        ("wait", "waitid(P_PIDFD, 5, WEXITED)", 20 * MS, 21 * MS, 77),
    ]
    return Timeline(parent, some_plan(), b"".join(RECORD.pack(*r) for r in records), started)


WHOLE = [(3 * MS, 3 * MS + 1000, 4), (4 * MS, 4 * MS + 2000, -errno.EEXIST), (5 * MS, 5 * MS + 500, 0), (6 * MS, 0, 0)]


def test_both_sides_by_time() -> None:
    events = timeline(*WHOLE)
    assert [(e.side, e.call) for e in events] == [
        ("parent", 'mkdir("/sys/fs/cgroup/x")'),
        ("parent", "clone3(CLONE_NEWNS)"),
        ("child", 'root = open_tree(AT_FDCWD, "/srv", OPEN_TREE_CLONE)'),
        ("child", 'mkdirat(AT_FDCWD, "/dev", 0o755)'),
        ("child", "close(<root>)"),
        ("child", 'execve(["/bin/true"], ["true"], [])'),
        ("parent", "waitid(P_PIDFD, 5, WEXITED)"),
    ]
    assert len(events) == 7
    assert isinstance(events[0], Event)
    assert events[2].seconds == 1e-6
    assert [e.side for e in events[1:3]] == ["parent", "child"]


def test_exec_ends_when_the_parent_wakes() -> None:
    execve = timeline(*WHOLE)[5]
    assert (execve.start, execve.end) == (6 * MS, 9 * MS)


def test_steps_that_were_never_begun_are_no_events() -> None:
    events = timeline(WHOLE[0], (0, 0, 0), (0, 0, 0), (0, 0, 0))
    assert [e.call.split("(")[0] for e in events if e.side == "child"] == ["root = open_tree"]


def test_the_step_that_the_child_was_killed_in_has_no_end() -> None:
    events = timeline(WHOLE[0], (4 * MS, 0, 0), (0, 0, 0), (0, 0, 0))
    killed = events[3]
    assert (killed.call, killed.end, killed.seconds) == ('mkdirat(AT_FDCWD, "/dev", 0o755)', 0, 0.0)
    (line,) = [line for line in events.format().splitlines() if "mkdirat" in line]
    assert line.split() == ["3000.0", "?", "child", "mkdirat(AT_FDCWD,", '"/dev",', "0o755)"]
    assert events.as_dict()[3]["took_us"] is None


def test_phases_sum_up_without_what_encloses_the_child() -> None:
    sums = timeline(*WHOLE).phases()
    assert list(sums) == [
        ("parent", "cgroup"),
        ("parent", "clone"),
        ("child", "root"),
        ("child", "execute"),
        ("parent", "wait"),
    ]
    assert sums["parent", "clone"] == 0.0
    assert sums["child", "root"] == pytest.approx(3.5e-6)
    assert sums["child", "execute"] == pytest.approx(3e-3)


def test_a_fork_within_the_child_is_not_counted_twice() -> None:
    plan = Plan([p.fork_sibling(), p.call("setsid")])
    records = RECORD.pack(1 * MS, 9 * MS, 0) + RECORD.pack(2 * MS, 3 * MS, 5)
    assert Timeline([], plan, records, 9 * MS).phases() == {("child", ""): 0.001}


def test_the_table() -> None:
    text = timeline(*WHOLE).format()
    assert text.splitlines()[0].split() == ["at", "us", "took", "side", "primitive"]
    rows = [line.split(maxsplit=3) for line in text.split("\n\n")[0].splitlines()[1:]]
    assert rows[0] == ["0.0", "500.0", "parent", 'mkdir("/sys/fs/cgroup/x") = 0']
    assert rows[2] == ["2000.0", "1.0", "child", 'root = open_tree(AT_FDCWD, "/srv", OPEN_TREE_CLONE) = 4']
    assert rows[3][3].endswith("= -1 EEXIST")
    assert text.splitlines()[-1].split() == ["1000.0", "parent", "wait"]


def test_as_data_it_is_json_with_null_for_what_is_unknown() -> None:
    rows = json.loads(json.dumps(timeline(*WHOLE).as_dict()))
    assert rows[0]["at_us"] == 0.0
    assert (rows[3]["result"], rows[3]["error"]) == (None, "File exists")
    assert (rows[2]["result"], rows[2]["error"]) == (4, None)
    assert rows[2]["phase"] == "root"


def test_nothing_happened() -> None:
    empty = Timeline([], None, b"", 0)
    assert list(empty) == []
    assert empty.format() == "no events"
    assert empty.as_dict() == []
    assert empty.phases() == {}


def test_how_it_shows() -> None:
    events = timeline(*WHOLE)
    assert repr(events).startswith(f"<minicontainer.Timeline: {len(events)} events in 0.0")
    assert len(repr(events)) < 60
    html = Timeline.of([Event("child", "<b>", 'mount("a&b")', 1, 2, -1)])._repr_html_()
    assert html.count("<tr>") == 2
    assert "<b>" not in html
    assert "a&amp;b" in html
    assert "-1 EPERM" in html
    assert repr(Timeline.of([])) == "<minicontainer.Timeline: 0 events in 0.000000 s>"
    assert Timeline.of([])._repr_html_().count("<tr>") == 1

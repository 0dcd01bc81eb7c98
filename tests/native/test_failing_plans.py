"""Every step of both plans of a start made to fail, with each of four errors: one error that says so, and nothing left,
in the foreground and under a monitor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from failing import ERRORS, broken, refused

import minicontainer as mc
from minicontainer.container import compilation
from minicontainer.container.registry import names
from minicontainer.plan.spawn import ParentPlan

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("detached", [False, True], ids=["foreground", "detached"])
@pytest.mark.parametrize("userns", ["private", "host"])
def test_each_step_of_the_child(rootfs: Path, monkeypatch: pytest.MonkeyPatch, userns: str, detached: bool) -> None:
    spec = mc.Spec(["true"], rootfs=str(rootfs), userns=userns, ulimits=(mc.Ulimit("core", 0, 0),), hostname="box")
    whole = compilation.compile_spec(spec)
    for index, step in enumerate(whole.plan.steps):
        for number in ERRORS:
            if number not in step.tolerate:
                plan = broken(whole.plan, index, number)
                parent_plan = None if whole.parent_plan is None else ParentPlan(whole.parent_plan.plan, plan)
                what = whole._replace(plan=plan, parent_plan=parent_plan)
                refused(spec, detached, what, plan.steps[index], monkeypatch)
    assert names.ids() == []


@pytest.mark.parametrize("detached", [False, True], ids=["foreground", "detached"])
def test_each_step_of_the_parent_side_plan(rootfs: Path, monkeypatch: pytest.MonkeyPatch, detached: bool) -> None:
    spec = mc.Spec(["true"], rootfs=str(rootfs), userns="private", ulimits=(mc.Ulimit("core", 0, 0),))
    whole = compilation.compile_spec(spec)
    assert whole.parent_plan is not None
    for index, step in enumerate(whole.parent_plan.plan.steps):
        for number in ERRORS:
            if number not in step.tolerate:
                failing = ParentPlan(broken(whole.parent_plan.plan, index, number), whole.plan)
                refused(spec, detached, whole._replace(parent_plan=failing), failing.plan.steps[index], monkeypatch)
    assert names.ids() == []


def test_a_restart_that_fails_is_tried_again(rootfs: Path, tmp_path: Path) -> None:
    """What was there at the first start and is not any more: its program."""
    from box import copy_of, until

    own = copy_of(rootfs, tmp_path / "root")
    (own / "prog").write_text("#!/bin/sh\nexit 1\n")
    (own / "prog").chmod(0o755)
    c = mc.Container.start(["/prog"], rootfs=str(own), restart="on-failure:3")
    os.unlink(own / "prog")
    try:
        assert c.wait(120) == 127
        assert (c.state.reason, c.state.restarts) == ("failed", 3)
        until(lambda: not c.state.is_running)
    finally:
        c.remove(force=True)

"""Plans with a failing step, for tests of errors and cleanup."""

from __future__ import annotations

import errno

import pytest

import minicontainer as mc
from minicontainer import plan as p
from minicontainer.container import compilation, start
from minicontainer.container.compilation import Compiled
from minicontainer.plan import Plan

ERRORS = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EPERM)


def broken(plan: Plan, index: int, number: int) -> Plan:
    """The plan with one step that fails."""
    steps = list(plan.steps)
    steps[index] = p.failing(steps[index], number)
    return Plan(steps, plan.inputs)


def begin(spec: mc.Spec, detached: bool) -> None:
    if detached:
        mc.Container.start(spec).remove(force=True)
    else:
        mc.run(spec, stdin=mc.DEVNULL)


def refused(spec: mc.Spec, detached: bool, what: Compiled, step: p.Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails with a one-line error."""
    for module in (start, compilation):  # start has imported it by name
        monkeypatch.setattr(module, "compile_spec", lambda *_: what)
    with pytest.raises(mc.Error) as raised:
        begin(spec, detached)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) > 10
    assert "fail(" not in message
    assert step.nr in ERRORS

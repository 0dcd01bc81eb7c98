"""What of a plan differs from run to run, though all containers of one spec share it: the container's id.

Theory of operation. The compiler writes ``ID`` where the id belongs, which is as long as an id; at a start the bytes
are replaced in the buffer, so that nothing is compiled or encoded again.
"""

from __future__ import annotations

from minicontainer.plan import Plan
from minicontainer.step import os_bytes

ID = "\x02its-own-id\x03"


def plan_of(plan: Plan, identifier: str) -> Plan:
    """The plan of the container that has this id (12 characters)."""
    old, new, encoded = os_bytes(ID), os_bytes(identifier), plan.encoded()
    if len(old) != len(new):
        raise ValueError(f"{identifier!r} is no id of {len(old)} characters")
    if old not in encoded.buffer:
        return plan
    steps = list(plan.steps)
    for i in _holders(plan):
        steps[i] = steps[i]._replace(args=tuple(_replaced(arg, identifier) for arg in steps[i].args))
    return Plan(steps, plan.inputs, encoded._replace(buffer=encoded.buffer.replace(old, new)))


def _holders(plan: Plan) -> list[int]:
    """The indices of the steps that have an id; found once."""
    found: list[int] | None = plan.__dict__.get("_holders")
    if found is None:
        found = [i for i, step in enumerate(plan.steps) if any(_replaced(arg, "") != arg for arg in step.args)]
        object.__setattr__(plan, "_holders", found)
    return found


def _replaced(arg: object, identifier: str) -> object:
    if type(arg) is str:
        return arg.replace(ID, identifier)
    if isinstance(arg, (list, tuple)):
        return type(arg)(_replaced(item, identifier) for item in arg)
    return arg

"""The placeholder for a container's id in the plan that all containers of one spec share.

Theory of operation. The compiler writes ``ID``, which is as long as an id, wherever a plan contains the container's id.
A start replaces these bytes in the encoded buffer, so that the plan is compiled and encoded once.
"""

from __future__ import annotations

from typing import Any

from minicontainer.plan import Plan
from minicontainer.plan.step import Step, os_bytes

ID = "\x02its-own-id\x03"


class _WithId(Plan):
    """A plan with an id. ``steps`` are made at their first use: a start that succeeds needs the buffer alone."""

    def __init__(self, template: Plan, identifier: str, buffer: bytes) -> None:
        encoded = template.encoded()._replace(buffer=buffer)
        for name, value in (("inputs", template.inputs), ("_encoded", encoded), ("_of", (template, identifier))):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> tuple[Step, ...]:
        if name != "steps":
            raise AttributeError(name)
        template, identifier = self.__dict__["_of"]
        steps = tuple(step._replace(args=_replaced(step.args, identifier)) for step in template.steps)
        object.__setattr__(self, "steps", steps)
        return steps


def with_id(plan: Plan, identifier: str) -> Plan:
    """The plan with this id (12 characters) instead of the placeholder."""
    pieces: list[bytes] | None = plan.__dict__.get("_pieces")
    if pieces is None:
        pieces = plan.buffer.split(os_bytes(ID))
        object.__setattr__(plan, "_pieces", pieces)
    new = os_bytes(identifier)
    if len(new) != len(ID):
        raise ValueError(f"{identifier!r} is no id of {len(ID)} characters")
    if len(pieces) == 1:
        return plan
    return _WithId(plan, identifier, new.join(pieces))


def _replaced(arg: Any, identifier: str) -> Any:
    if type(arg) is str:
        return arg.replace(ID, identifier)
    if isinstance(arg, (list, tuple)):
        return type(arg)(_replaced(item, identifier) for item in arg)
    return arg

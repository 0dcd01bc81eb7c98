"""The placeholder for a container's id in the plan that all containers of one spec share.

Theory of operation. The compiler writes ``ID``, which is as long as an id, wherever a plan contains the container's id.
A start replaces these bytes in the encoded buffer, so that the plan is compiled and encoded once.
"""

from __future__ import annotations

from minicontainer.plan import Plan
from minicontainer.plan.builder import LikePlan
from minicontainer.plan.encoding import Encoded
from minicontainer.plan.step import os_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ID = "\x02its-own-id\x03"
ID_BYTES = os_bytes(ID)
LENGTH = len(ID_BYTES)


def buffer_with_id(plan: Plan, identifier: str) -> bytes:
    """The buffer of ``with_id``."""
    pieces: list[bytes] | None = plan.__dict__.get("_pieces")
    if pieces is None:
        pieces = plan.__dict__["_pieces"] = plan.buffer.split(ID_BYTES)
    new = identifier.encode()
    if len(new) != LENGTH:
        raise ValueError(f"{identifier!r} is no id of {LENGTH} characters")
    return plan.buffer if len(pieces) == 1 else new.join(pieces)


def with_id(plan: Plan, identifier: str) -> Plan:
    """The plan with this id (12 characters) instead of the placeholder."""
    buffer, encoded = buffer_with_id(plan, identifier), plan.encoded()
    if buffer is encoded.buffer:
        return plan
    return LikePlan(
        plan,
        Encoded(buffer, *encoded[1:]),
        lambda: lambda _, step: step._replace(args=_replaced(step.args, identifier)),
    )


def _replaced(arg: Any, identifier: str) -> Any:
    if type(arg) is str:
        return arg.replace(ID, identifier)
    if isinstance(arg, (list, tuple)):
        return type(arg)(_replaced(item, identifier) for item in arg)
    return arg

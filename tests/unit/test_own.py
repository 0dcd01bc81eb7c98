"""The id of a container in a plan that many share."""

from __future__ import annotations

import pytest

from minicontainer import plan as p
from minicontainer.container.placeholders import ID, with_id
from minicontainer.plan import Plan, Slot

STEPS = [
    p.sethostname(ID),
    p.write(Slot("a"), f"127.0.1.1\t{ID}\n"),
    p.execve(["/bin/true"], ["true", ID], [f"HOSTNAME={ID}", "A=its-own-id"]),
]


def test_nothing_else_moves_or_is_encoded_again() -> None:
    plan = Plan(STEPS, ["a"])
    made = with_id(plan, "0123456789ab")
    assert made.describe() == Plan(STEPS).describe().replace("\\x02its-own-id\\x03", "0123456789ab")
    assert made.buffer == Plan(made.steps, ["a"]).buffer != plan.buffer
    assert (made.slots, made.nstrings, made.inputs) == (plan.slots, plan.nstrings, plan.inputs)
    assert with_id(plan, "ba9876543210").buffer.count(b"ba9876543210") == 4


def test_a_plan_without_an_id_is_left_as_it_is() -> None:
    plan = Plan([p.sethostname("box")])
    assert with_id(plan, "0123456789ab") is plan


def test_an_id_is_as_long_as_its_place() -> None:
    with pytest.raises(ValueError, match="no id of 12 characters"):
        with_id(Plan(STEPS, ["a"]), "0123")

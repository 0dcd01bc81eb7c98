"""The plans of a compiled container: ``struct mc_variant`` and ``struct mc_parent_part``."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minicontainer.compiled.payload import Payload, places
from minicontainer.container import compiler, explain, facts, parent, placeholders
from minicontainer.container.filesystem.dev import WINDOW
from minicontainer.container.host import Host
from minicontainer.container.program import execute, init
from minicontainer.errors import SpecError, UnsupportedError, quote
from minicontainer.plan import Plan, Step
from minicontainer.plan.spawn import PIPE_ENDS, ParentPlan
from minicontainer.plan.step import os_bytes
from minicontainer.records import replace
from minicontainer.spec import Spec

SENTINEL = (0x4D43, 0x5749)  # rows and columns that the plan has instead of those of the run
ID_MARK = "\x01"  # stands for the container's id in a text
SHOWN_ID = placeholders.ID.encode("unicode_escape").decode()
SHOWN_WINDOW = "{{{}, {}}}".format(*SENTINEL)
STREAMS = ("stdin", "stdout", "stderr")
OTHERS = ("parent-socket", "report", "init", "filter")


class Variant(NamedTuple):
    """A spec that is compiled with or without a terminal."""

    spec: Spec
    host: Host
    plan: Plan
    parent_plan: ParentPlan | None


Name = Callable[[str], str]  # what a message calls a field of Spec


def variant(spec: Spec, exe: str, *, tty: bool) -> Variant:
    """Compiles the spec; ``exe`` is the executable that the child runs until its exec."""
    spec = replace(spec, tty=tty)
    host = facts.gather(spec, exe)._replace(sends_upper=False, window=SENTINEL if tty else None)
    plan = compiler.compile(spec, host)
    return Variant(spec, host, plan, parent.template(spec, host, plan))


def put_variant(payload: Payload, target: Any, made: Variant, name: Name, others: Sequence[str] = ()) -> None:
    """Writes a struct mc_variant. ``others``: inputs of the plan that are not of a container (machine.py)."""
    spec, host, plan, parent_plan = made
    slots = {name: plan.slots[name] for name in plan.inputs if name not in others}
    target.plan = payload.span(plan.buffer)
    target.flags = compiler.clone_flags(spec, host)
    target.ids = payload.array("uint32_t", places(plan.buffer, os_bytes(placeholders.ID)))
    target.window = next(places(plan.buffer, WINDOW.pack(*SENTINEL, 0, 0))) if spec.tty else 0
    target.texts = payload.list(texts(spec, plan, name))[0]
    target.input, target.output, target.error = (slots.pop(name) for name in STREAMS)
    target.socket, target.report, target.init, target.filter = (slots.pop(name, -1) for name in OTHERS)
    target.ready, target.go, target.answer = (slots.pop(name, -1) for name in PIPE_ENDS)
    paths = [(slots.pop(f"ns-{field}"), field, path) for field, _ in compiler.JOINS if (path := spec.joined(field))]
    target.namespaces = payload.array(
        "struct mc_namespace", [(slot, payload.string(field), payload.string(path)) for slot, field, path in paths]
    )
    if parent_plan is not None:
        target.shared = payload.array("int32_t", list(parent_plan.shared))
        for slot in list(parent_plan.shared)[1::2]:
            slots = {name: number for name, number in slots.items() if number != slot}
    if slots:
        raise SpecError("compile", ", ".join(slots), "is an input of the plan that a file cannot open")


def put_parent(payload: Payload, target: Any, made: Variant, name: Name) -> None:
    """Writes the struct mc_parent_part."""
    target.uid = target.gid = target.count = target.helper_output = -1
    if made.parent_plan is None:
        return
    plan = made.parent_plan.plan
    target.plan = payload.span(plan.buffer)
    target.texts = payload.list(texts(made.spec, plan, name))[0]
    target.ninputs = len(plan.inputs)
    names = ("uid", "gid", "count", "helper-output")
    target.uid, target.gid, target.count, target.helper_output = (
        plan.slots[name] if name in plan.inputs else -1 for name in names
    )


def put_stage(payload: Payload, target: Any, made: Variant) -> None:
    """Writes the arguments and the program of init, where init executes the program."""
    spec, host = made.spec, made.host
    if not execute.is_staged(spec, host):
        return
    target.stage = payload.list(execute.stage_arguments(spec, host))
    with open(init.INIT, "rb") as file:
        target.init = payload.span(file.read())
    target.filter = payload.span(host.seccomp)


def texts(spec: Spec, plan: Plan, name: Name) -> list[str]:
    """For each step its phase, its call, and how its failure is called, with the hint."""
    strings: list[str] = []
    for step in plan.steps:
        is_exec = step is plan.steps[-1] and step.call.startswith("exec")
        call = "" if is_exec else step.describe().replace(SHOWN_ID, ID_MARK).replace(SHOWN_WINDOW, "{rows, columns}")
        strings += [step.phase, call, *_failure(spec, step, name)]
    return strings


def _failure(spec: Spec, step: Step, name: Name) -> tuple[str, str]:
    """What the library names where the step fails with an errno that says nothing of itself; ("", ""): the step."""
    try:
        error = explain.step_error(spec, step, errno.EIO)
    except StopIteration:
        return "", ""  # a resource limit of the library's, which no option names
    if not isinstance(error, (SpecError, UnsupportedError)) or error.reason != "input/output error":
        return "", getattr(error, "hint", "")
    return name(error.what) + ("" if error.value is None else f" {quote(str(error.value))}"), error.hint

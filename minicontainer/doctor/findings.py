"""How the doctor asks: a ``Probe`` tries one thing and gives a ``Verdict``, within bounds.

Theory of operation. Each probe runs in a thread of its own, and is waited for a while (LIMIT). One that takes longer
has the children of its thread killed, so that it ends and undoes what it made; one that raises says why, and one that
crashes says so: neither keeps the others from being asked.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from minicontainer.errors import Error, SpecError, StepError, UnsupportedError

LIMIT = 5.0  # seconds for one probe
GRACE = 1.0  # seconds for what it undoes when its children were killed


@dataclass(frozen=True)
class Verdict:
    """``status`` is ``ok``, ``no`` (it does not work: ``detail`` says why) or ``note``; ``remedy`` what to do."""

    status: str
    detail: str = ""
    remedy: str = ""


class Probe(NamedTuple):
    """One question. ``needed``: a default ``run`` cannot do without."""

    name: str
    ask: Callable[[], Verdict]
    needed: bool = False


@dataclass(frozen=True)
class Finding:
    """A probe's answer."""

    name: str
    verdict: Verdict
    needed: bool = False

    @property
    def is_fatal(self) -> bool:
        """Whether a default ``run`` is not to be had because of it."""
        return self.needed and self.verdict.status == "no"


def ok(detail: str = "") -> Verdict:
    """It works."""
    return Verdict("ok", detail)


def no(detail: str, remedy: str = "") -> Verdict:
    """It does not work, and why."""
    return Verdict("no", detail, remedy)


def note(detail: str, remedy: str = "") -> Verdict:
    """Something to know."""
    return Verdict("note", detail, remedy)


def ask(probe: Probe, limit: float = LIMIT) -> Finding:
    """The probe's answer, or why there is none after ``limit`` seconds."""
    answers: list[Verdict] = []
    thread = threading.Thread(target=lambda: answers.append(_answer(probe)), name=probe.name, daemon=True)
    thread.start()
    thread.join(limit)
    if not thread.is_alive():
        return Finding(probe.name, answers[0], probe.needed)
    _kill_children(thread.native_id)
    thread.join(GRACE)
    return Finding(probe.name, no(f"no answer within {limit:g} s"), probe.needed)


def _answer(probe: Probe) -> Verdict:
    try:
        return probe.ask()
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> Verdict:
    """An exception as a verdict."""
    if isinstance(error, (UnsupportedError, SpecError)):
        return no(error.reason, error.hint)
    if isinstance(error, StepError):
        return no(f"{error.call}: {os.strerror(error.errno or 0)}", error.hint)
    if isinstance(error, Error):
        return no(str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return no(f"{where}{error.strerror or error}")
    return no(f"the probe crashed: {type(error).__name__}: {error}", "please report it")


def _kill_children(thread: int | None) -> None:
    """SIGKILL to the children of one of our threads (CONFIG_PROC_CHILDREN): nobody else reaps them."""
    try:
        with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
            children = file.read().split()
    except OSError:
        return
    for pid in children:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass

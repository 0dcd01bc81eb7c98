"""Probes: a ``Probe`` tries one feature and returns a ``Verdict``, within a time limit.

Theory of operation. Each probe runs in a thread of its own. After LIMIT seconds the children of that thread are killed,
so that the probe ends and undoes its changes. A probe that raises, or crashes, becomes a verdict with the reason, and
does not prevent the other probes.
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
GRACE = 1.0  # seconds to undo changes after its children were killed


@dataclass(frozen=True)
class Verdict:
    """``status`` is ``ok``, ``no`` (not supported: ``detail`` is the reason) or ``note``; ``remedy``: what to do."""

    status: str
    detail: str = ""
    remedy: str = ""


class Probe(NamedTuple):
    """One test of the host. ``needed``: ``run`` with default options needs the feature."""

    name: str
    ask: Callable[[], Verdict]
    needed: bool = False


@dataclass(frozen=True)
class Finding:
    """The verdict of a probe."""

    name: str
    verdict: Verdict
    needed: bool = False

    @property
    def is_fatal(self) -> bool:
        """Whether ``run`` with default options fails because of it."""
        return self.needed and self.verdict.status == "no"


def ok(detail: str = "") -> Verdict:
    """The feature works."""
    return Verdict("ok", detail)


def no(detail: str, remedy: str = "") -> Verdict:
    """The feature does not work: the reason and the remedy."""
    return Verdict("no", detail, remedy)


def note(detail: str, remedy: str = "") -> Verdict:
    """A remark."""
    return Verdict("note", detail, remedy)


def ask(probe: Probe, limit: float = LIMIT) -> Finding:
    """Run a probe; its finding, or a failure after ``limit`` seconds."""
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(_run(probe)), name=probe.name, daemon=True)
    thread.start()
    thread.join(limit)
    if not thread.is_alive():
        return Finding(probe.name, verdicts[0], probe.needed)
    _kill_children(thread.native_id)
    thread.join(GRACE)
    return Finding(probe.name, no(f"no answer within {limit:g} s"), probe.needed)


def _run(probe: Probe) -> Verdict:
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
    """Kill the children of one thread of this process (CONFIG_PROC_CHILDREN)."""
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

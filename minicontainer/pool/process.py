"""A program in a container of a pool: ``Popen``, whose container waited for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, AnyStr

from minicontainer.container.calls import made
from minicontainer.container.child import Child
from minicontainer.container.process import Popen
from minicontainer.container.running import OfRun
from minicontainer.plan.timeline import Event, Timeline
from minicontainer.pool.stock import Stock
from minicontainer.records import replace

if TYPE_CHECKING:
    from minicontainer.spec.keywords import Stream


class Process(Popen[AnyStr]):
    """As Popen. ``timeline`` begins with the request, and has the exec as an event; the walltime counts from the
    request too."""

    def __init__(
        self,
        stock: Stock,
        args: Sequence[str] | None,
        *,
        env: Mapping[str, str] | Sequence[str] | None = None,
        cwd: Any = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        max_output: int | str | None = None,
    ) -> None:
        self._stock = stock
        self._events: tuple[Event, ...] = ()
        given: Any = {"args": args, "env": env, "cwd": cwd}
        changes = {name: value for name, value in given.items() if value is not None}
        spec = replace(stock.spec, **changes) if changes else stock.spec
        streams: Any = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "max_output": max_output}
        super().__init__(spec, text=text, encoding=encoding, errors=errors, **streams)

    def _start(self, stdio: tuple[int, int, int]) -> Child:
        child, self._events = self._stock.serve(self.spec, stdio)
        return child

    @property
    def timeline(self) -> Timeline:
        """The timeline of the request so far; that of a whole start where no container had waited for it."""
        if not self._events:
            return super().timeline
        began = self._events[0].start  # what made the container was before
        ends: list[Event] = [Event("parent", *call) for call in made(self._started) if call[2] > began]
        return Timeline.of(sorted([*self._events, *ends], key=lambda event: event.start))


class RunProcess(OfRun, Process[AnyStr]):
    """The Process of ``run``."""

"""``Pool``: containers that are ready up to the exec, for programs whose start must not wait for the rest.

    with mc.Pool(mc.Spec(["python3"], rootfs="rootfs/", limits=limits), size=8) as pool:
        for program in programs:
            result = pool.run(["python3", "-c", program], capture_output=True, timeout=5)

Each container serves one program and is never used again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from minicontainer.container.result import Result
from minicontainer.container.running import finish
from minicontainer.errors import SpecError
from minicontainer.pool.process import Process, RunProcess
from minicontainer.pool.stock import Stock
from minicontainer.records import names
from minicontainer.spec import Spec

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from minicontainer.spec.keywords import (
        BytesPoolPopenKeywords,
        BytesPoolRunKeywords,
        EncodedPoolPopenKeywords,
        EncodedPoolRunKeywords,
        PoolPopenKeywords,
        PoolRunKeywords,
        TextPoolPopenKeywords,
        TextPoolRunKeywords,
    )

MOST = 4096  # containers of one pool
OF_A_REQUEST = ("env", "cwd", "stdin", "stdout", "stderr", "max_output")  # fields of Spec that each has for itself


class Pool:
    """Containers of ``spec`` that are ready up to the exec, ``size`` of them; its ``args``, ``env`` and ``cwd`` are the
    defaults of requests. A thread keeps the pool full; with ``thread=False`` only ``fill`` does.

    The first container is made at once: an error of the spec or of the host is raised here. A request that finds the
    pool empty makes a container itself, and raises what a start raises.

    Every method may be called from any thread. A forked process cannot use its parent's pool, and does not keep its
    containers alive."""

    def __init__(self, spec: Spec, *, size: int = 8, thread: bool = True) -> None:
        if not isinstance(spec, Spec):
            raise TypeError(f"a pool is of a Spec, not of {type(spec).__name__!r}")
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MOST:
            raise SpecError("size", size, f"is no number of containers from 1 to {MOST}")
        check(spec)
        self.spec, self.size = spec, size
        self._stock = Stock(spec, size)
        self._finalizer = weakref.finalize(self, self._stock.close)
        try:
            self._stock.make_one()
            if thread:
                self._stock.start_thread()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """The number of containers that wait."""
        return len(self._stock)

    @property
    def failure(self) -> Exception | None:
        """The error for which the pool could not be filled; None once it is full again."""
        return self._stock.failure

    def fill(self) -> None:
        """Makes containers until ``size`` of them wait. Raises what a start raises; those made so far stay."""
        self._stock.fill()

    @overload
    def run(self, args: Sequence[str] | None = None, **keywords: Unpack[TextPoolRunKeywords]) -> Result[str]: ...
    @overload
    def run(self, args: Sequence[str] | None = None, **keywords: Unpack[EncodedPoolRunKeywords]) -> Result[str]: ...
    @overload
    def run(self, args: Sequence[str] | None = None, **keywords: Unpack[BytesPoolRunKeywords]) -> Result[bytes]: ...
    @overload
    def run(self, args: Sequence[str] | None = None, **keywords: Unpack[PoolRunKeywords]) -> Result[Any]: ...
    def run(self, args: Sequence[str] | None = None, **keywords: Any) -> Result[Any]:
        """Runs a program to its end in a container that waits. Keywords are those of ``mc.run`` besides the fields of
        Spec, and ``env`` and ``cwd``."""

        _check_keywords(keywords)

        def start(**of_popen: Any) -> Process[Any]:
            return RunProcess(self._stock, args, **of_popen)

        return finish(start, **keywords)

    @overload
    def Popen(self, args: Sequence[str] | None = None, **keywords: Unpack[TextPoolPopenKeywords]) -> Process[str]: ...
    @overload
    def Popen(
        self, args: Sequence[str] | None = None, **keywords: Unpack[EncodedPoolPopenKeywords]
    ) -> Process[str]: ...
    @overload
    def Popen(
        self, args: Sequence[str] | None = None, **keywords: Unpack[BytesPoolPopenKeywords]
    ) -> Process[bytes]: ...
    @overload
    def Popen(self, args: Sequence[str] | None = None, **keywords: Unpack[PoolPopenKeywords]) -> Process[Any]: ...
    def Popen(self, args: Sequence[str] | None = None, **keywords: Any) -> Process[Any]:
        """Starts a program in a container that waits. Keywords are those of ``mc.Popen`` besides the fields of Spec,
        and ``env`` and ``cwd``."""
        _check_keywords(keywords)
        return Process(self._stock, args, **keywords)

    def close(self) -> None:
        """Ends the containers that wait. Those that were handed a program go on. If an exception of a signal handler
        interrupts it, it can be called again."""
        self._stock.close()
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<minicontainer.Pool: {len(self)} of {self.size} wait>"


def _check_keywords(keywords: Iterable[str]) -> None:
    """TypeError: one is a field of Spec, which all containers of a pool have in common."""
    for name in keywords:
        if name in names(Spec) and name not in OF_A_REQUEST:
            raise TypeError(f"{name!r} is the same in all containers of a pool: it is an argument of the pool's Spec")


def check(spec: Spec) -> None:
    """SpecError where a container of ``spec`` cannot be made before its program is known, or not more than once."""
    asked = {
        "executable": spec.executable,
        "init": spec.init,
        "name": spec.name,
        "network": spec.attached or spec.network.startswith("container:"),
        "tty": spec.tty,
    }
    refused = [name for name, value in asked.items() if value]
    if refused:
        values = ", ".join(str(getattr(spec, name)) for name in refused)
        raise SpecError(", ".join(refused), values, "cannot be had by containers of a pool", "mc.run, or mc.Popen")

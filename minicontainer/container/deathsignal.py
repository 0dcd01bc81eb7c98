"""A clone by a thread that lasts as long as the child, for a container that is to end with this process.

The "parent" of prctl(2), PR_SET_PDEATHSIG is the *thread* that has created the child: where a worker has, the container
would end with the worker. So another thread creates it, and sleeps until it has ended. It is made by the caller's, and
has therefore whatever a thread has of its own: namespaces, ids, the processors that it may use.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any

from minicontainer.errors import UnsupportedError
from minicontainer.native import lib
from minicontainer.plan.spawn import ParentRun, Spawn


class Maker(threading.Thread):
    """Makes the child of ``spawn``, and lasts until that has ended."""

    def __init__(self, spawn: Spawn) -> None:
        super().__init__(name="minicontainer", daemon=True)
        self._spawn = spawn
        self._given: tuple[Any, ...] = ()
        self._made = threading.Event()
        self._error: BaseException | None = None

    def clone(self, flags: int, inputs: Mapping[str, int], cgroup: int = -1, parent: ParentRun | None = None) -> int:
        """As ``Spawn.clone``. UnsupportedError: the system gives no thread."""
        self._given = flags, inputs, cgroup, parent
        try:
            self.start()
        except RuntimeError:  # Python keeps the errno to itself: EAGAIN of clone(2), or no memory for its stack
            hint = "ulimit -u, ulimit -v, pids.max"
            raise UnsupportedError("threads", None, "the system gives no more of them", hint) from None
        self._made.wait()
        if self._error is not None:
            raise self._error
        return self._spawn.result

    def run(self) -> None:
        """The thread. Signals are for the others, whom they are to wake."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._spawn.clone(*self._given)
        except BaseException as e:
            self._error = e
        finally:
            self._made.set()
        if self._spawn.pidfd >= 0:
            lib.mc_pidfd_wait(self._spawn.pidfd, -1)

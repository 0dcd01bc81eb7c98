"""``die_with_parent``: a clone by a thread that lives as long as the child.

The "parent" of prctl(2), PR_SET_PDEATHSIG is the *thread* that created the child: a container that a worker thread
created would end with that worker. So a new thread creates the child and sleeps until the child has ended. The new
thread inherits the caller's per-thread state: namespaces, ids, CPU affinity.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any

from minicontainer.errors import UnsupportedError
from minicontainer.native import lib
from minicontainer.plan.spawn import ParentRun, Spawn


class CloneThread(threading.Thread):
    """Clones the child of ``spawn``, and lives until the child has ended."""

    def __init__(self, spawn: Spawn) -> None:
        super().__init__(name="minicontainer", daemon=True)
        self._spawn = spawn
        self._arguments: tuple[Any, ...] = ()
        self._cloned = threading.Event()
        self._error: BaseException | None = None

    def clone(self, flags: int, inputs: Mapping[str, int], cgroup: int = -1, parent: ParentRun | None = None) -> int:
        """As ``Spawn.clone``. UnsupportedError where no thread can be created."""
        self._arguments = flags, inputs, cgroup, parent
        try:
            self.start()
        except RuntimeError:  # Python does not give the errno: EAGAIN of clone(2), or ENOMEM for the stack
            hint = "ulimit -u, ulimit -v, pids.max"
            raise UnsupportedError("threads", None, "the system gives no more of them", hint) from None
        self._cloned.wait()
        if self._error is not None:
            raise self._error
        return self._spawn.result

    def run(self) -> None:
        """The thread. It blocks all signals, so that they wake the caller's threads."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._spawn.clone(*self._arguments)
        except BaseException as e:
            self._error = e
        finally:
            self._cloned.set()
        if self._spawn.pidfd >= 0:
            lib.mc_pidfd_wait(self._spawn.pidfd, -1)

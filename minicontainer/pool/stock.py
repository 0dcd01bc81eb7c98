"""The containers of a pool that wait, and the thread that keeps up their number.

Theory of operation. A request takes a container from the stock. Where none is left it makes one itself: so it never
waits for the thread, and the error of a start is its own. The thread makes one at a time, while no request is being
handed over, since both need the processors and the kernel's locks; below half of the size it does not wait for that.
It wakes also when a waiting container has been killed, and replaces it. After a failure it tries again, later each
time.

Where the host has no room for one more (descriptors, processes, memory), half of those that wait are ended: what only
waits must not keep others, such as ``mc.run``, from starting.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import weakref
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from minicontainer.container.start import start
from minicontainer.errors import EXHAUSTED, Error, UnsupportedError
from minicontainer.pool.waiting import Running, Waiting

if TYPE_CHECKING:
    from minicontainer.spec import Spec

TRIES = 3  # containers that one request takes, each of which ends before the exec
NO_ROOM = (*EXHAUSTED, errno.EAGAIN)  # EAGAIN: of clone3(2), where there may be no more processes
SHORTEST, LONGEST = 0.02, 2.0  # seconds between two attempts of the thread that fail


class Stock:
    """Waiting containers of one spec, at most ``size``. Every method may be called from any thread."""

    def __init__(self, spec: Spec, size: int) -> None:
        self.spec, self.size = spec, size
        self.failure: Exception | None = None  # for which it was not full when it was last filled
        self.owner = os.getpid()
        self._waiting: deque[Waiting] = deque()
        self._handing: set[object] = set()  # of requests (an exception of a signal handler cannot miscount a set)
        self._making: set[object] = set()  # of containers
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake = -1  # the thread's eventfd
        _stocks.add(self)

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self) -> None:
        """Error where the stock is closed, or another process's."""
        if self.owner != os.getpid():
            raise Error(f"pool: belongs to process {self.owner}, of which this is a fork: a pool of its own")
        if self._closing.is_set():
            raise Error("pool: is closed")

    # -- requests

    def serve(self, spec: Spec, stdio: tuple[int, int, int]) -> Running:
        """Hands the program of ``spec`` to a container. Where each that is tried ends before the exec, as by a memory
        limit that the arguments exceed, starts one that does not wait, for its error."""
        mark = object()
        try:
            self._handing.add(mark)
            for _ in range(TRIES):
                waiting = self._take()
                try:
                    running = waiting.hand(spec, stdio)
                except BaseException:
                    waiting.close()
                    raise
                if running is not None:
                    return running
                waiting.close()
            return Running(start(spec, stdio), ())
        finally:
            self._handing.discard(mark)
            self._wake_thread()

    def _take(self) -> Waiting:
        self.check()
        with suppress(IndexError):
            while (waiting := self._waiting.popleft()).has_ended():
                waiting.close()
            return waiting
        return Waiting(self.spec)

    # -- filling

    def fill(self) -> None:
        """Makes containers until ``size`` wait. Raises as ``start`` does."""
        self.check()
        self._remove_ended()
        while self.make_one():
            pass

    def make_one(self) -> bool:
        """Makes a container; False where none is lacking."""
        mark = object()
        try:
            with self._lock:
                if self._closing.is_set() or len(self._waiting) + len(self._making) >= self.size:
                    return False
                self._making.add(mark)
            new = Waiting(self.spec)
            if self._add(new):
                return True
        except Exception as e:
            self.failure = e
            if isinstance(e, OSError) and e.errno in NO_ROOM:
                self._end(len(self._waiting) // 2 + 1)
            raise
        finally:
            self._making.discard(mark)
        new.close()
        return False

    def _add(self, new: Waiting) -> bool:
        """Whether the stock, which may have been closed meanwhile, has taken the container."""
        with self._lock:
            if self._closing.is_set():
                return False
            self._waiting.append(new)
            if len(self._waiting) >= self.size:
                self.failure = None
            return True

    def _remove_ended(self) -> int:
        """Removes the containers that were killed while they waited; returns how many."""
        count = 0
        for waiting in tuple(self._waiting):
            if waiting.has_ended():
                with suppress(ValueError):  # a request has taken it meanwhile
                    self._waiting.remove(waiting)
                    count += 1
                    waiting.close()
        return count

    # -- the thread

    def start_thread(self) -> None:
        """Starts the thread. It ends with ``close``."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._keep_full, name="minicontainer-pool", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # Python does not give the errno
            self._thread = None
            self._close_wake()
            hint = "ulimit -u, ulimit -v, pids.max; or a pool with thread=False"
            raise UnsupportedError("threads", None, "the system gives no more of them", hint) from None

    def _keep_full(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they wake the caller's threads
        pause = SHORTEST
        while not self._closing.is_set():
            try:
                failed = self._remove_ended() > 0
                made = self._may_make() and self.make_one()
            except Exception:  # self.failure; a request that then makes its own container gets the like
                failed, made = True, False
            if failed:
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST)
            elif not made:
                self._sleep()
                pause = SHORTEST
        self._close_wake()

    def _may_make(self) -> bool:
        return not self._handing or 2 * len(self._waiting) < self.size

    def _sleep(self) -> None:
        """Sleeps until it is woken, or a waiting container has ended."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for waiting in tuple(self._waiting):
            if (pidfd := waiting.pidfd) >= 0:
                poll.register(pidfd, select.POLLIN)
        poll.poll()
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _wake_thread(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _close_wake(self) -> None:
        with self._lock:
            fd, self._wake = self._wake, -1
        if fd >= 0:
            os.close(fd)

    # -- the end

    def close(self) -> None:
        """Ends the thread, and every container that waits."""
        if self.owner != os.getpid():
            return
        self._closing.set()
        self._wake_thread()
        if self._thread is not None and self._thread is not threading.current_thread():
            with suppress(RuntimeError):  # a signal handler raised before it was started
                self._thread.join()
        self._close_wake()
        self._end(len(self._waiting))

    def _end(self, count: int) -> None:
        """Ends containers that wait."""
        ended: list[Waiting] = []
        with suppress(IndexError):
            while len(ended) < count:
                ended.append(self._waiting.popleft())
        for waiting in ended:  # all at the same time
            waiting.let_end()
        with ExitStack() as stack:
            for waiting in ended:
                stack.callback(waiting.close)

    def leave(self) -> None:
        """In a forked process: gives up the containers, which are the parent process's."""
        self._lock, self._thread = threading.RLock(), None
        for waiting in self._waiting:
            waiting.leave()
        self._waiting.clear()
        self._close_wake()


_stocks: weakref.WeakSet[Stock] = weakref.WeakSet()


def _leave_all() -> None:
    for stock in tuple(_stocks):
        stock.leave()


os.register_at_fork(after_in_child=_leave_all)

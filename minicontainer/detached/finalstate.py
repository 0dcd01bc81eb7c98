"""What a monitor writes last, for who waits for its end: also where nothing is kept of the container.

The monitor writes its state into two files by turns (csrc/monitor/state.c). Who has both open has the last one, also
when their names are gone. So who waits costs the monitor nothing, however many there are.
"""

from __future__ import annotations

import os

from minicontainer import runtime
from minicontainer.detached.records import CorruptError, State
from minicontainer.errors import EXHAUSTED, as_step_error
from minicontainer.linux.process import Process, pidfd_wait

SIZE = 4096  # bytes: more than a state has


class LastWord:
    """Of ``monitor``; the files of ``directory`` are opened now."""

    def __init__(self, directory: str, monitor: Process) -> None:
        self._monitor = monitor
        self._fds: list[int] = []
        while not self._has_both(directory):
            self.close()

    def _has_both(self, directory: str) -> bool:
        """Opens them; False where they were exchanged between. The one that is to be written first: where that is gone,
        the other is final."""
        for name in (".state", "state"):
            try:
                self._fds.append(runtime.opened(f"{directory}/{name}"))
            except ValueError:
                continue  # no monitor wrote that
            except OSError as e:
                if e.errno in EXHAUSTED:
                    self.close()
                    raise as_step_error(e, name) from None
                # it has ended by now
        return len({os.fstat(fd).st_ino for fd in self._fds}) == len(self._fds)

    def read(self) -> State | None:
        """Once it has ended; None where it was killed."""
        for fd in self._fds:
            try:
                state = State.from_json(os.pread(fd, SIZE, 0).decode(), watched=False)
            except (CorruptError, UnicodeDecodeError):
                continue
            if state.status == "exited" and state.monitor == self._monitor:
                return state
        return None

    def close(self) -> None:
        """Closes the files."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> LastWord:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def await_foreground(identifier: str, directory: str, creator: Process | None, timeout: float | None) -> State | None:
    """The final state of a container in the foreground, which its creator writes into the file that is there; None
    where the creator was killed. TimeoutError."""
    try:
        fd = runtime.opened(f"{directory}/state")
    except ValueError:
        return None  # its creator does not look after that any more
    with open(fd, "rb", buffering=0) as last:
        pidfd = -1 if creator is None else creator.pidfd()
        try:
            if pidfd >= 0 and not pidfd_wait(pidfd, timeout):
                raise TimeoutError(f"container {identifier[:12]}: has not ended after {timeout:g} seconds")
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        try:
            state = State.from_json(os.pread(last.fileno(), SIZE, 0).decode("utf-8", "replace"), watched=False)
        except CorruptError:
            return None
    return state if state.status == "exited" else None

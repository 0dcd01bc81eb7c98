"""The final state of a container, for processes that wait for its end, even if the container is removed at its end.

The monitor writes its state to two files in turn (csrc/monitor/state.c). A process that has both files open can read
the final state after they were removed. So waiting costs the monitor nothing, whatever the number of waiting
processes."""

from __future__ import annotations

import os

from minicontainer import runtime
from minicontainer.detached.records import CorruptError, State
from minicontainer.errors import EXHAUSTED, as_step_error
from minicontainer.linux.process import pidfd_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.linux.process import Process

READ_SIZE = 4096  # bytes: more than a state file has


class FinalState:
    """The final state that ``monitor`` will write. Opens the state files of ``directory``."""

    def __init__(self, directory: str, monitor: Process) -> None:
        self._monitor = monitor
        self._fds: list[int] = []
        while not self._open_both(directory):
            self.close()

    def _open_both(self, directory: str) -> bool:
        """Opens both files; False if the monitor exchanged them meanwhile. Opens the spare file first: if it does not
        exist any more, the other file is final."""
        for name in (".state", "state"):
            try:
                self._fds.append(runtime.open_regular(f"{directory}/{name}"))
            except ValueError:
                continue  # no regular file: the monitor did not write it
            except OSError as e:
                if e.errno in EXHAUSTED:
                    self.close()
                    raise as_step_error(e, name) from None
                # the container has ended meanwhile
        return len({os.fstat(fd).st_ino for fd in self._fds}) == len(self._fds)

    def read(self) -> State | None:
        """The final state, once the monitor has ended; None if the monitor was killed."""
        for fd in self._fds:
            try:
                state = State.from_json(os.pread(fd, READ_SIZE, 0).decode(), owner_alive=False)
            except (CorruptError, UnicodeDecodeError):
                continue
            if state.status == "exited" and state.monitor == self._monitor:
                return state
        return None

    def close(self) -> None:
        """Closes the files."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> FinalState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def await_foreground(identifier: str, directory: str, creator: Process | None, timeout: float | None) -> State | None:
    """Waits for the end of a foreground container; returns its final state, which its creator writes to the existing
    file, or None if the creator was killed. TimeoutError."""
    try:
        fd = runtime.open_regular(f"{directory}/state")
    except ValueError:
        return None  # no regular file: the creator did not write it
    with open(fd, "rb", buffering=0) as last:
        pidfd = -1 if creator is None else creator.pidfd()
        try:
            if pidfd >= 0 and not pidfd_wait(pidfd, timeout):
                raise TimeoutError(f"container {identifier[:12]}: has not ended after {timeout:g} seconds")
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        try:
            state = State.from_json(os.pread(last.fileno(), READ_SIZE, 0).decode("utf-8", "replace"), owner_alive=False)
        except CorruptError:
            return None
    return state if state.status == "exited" else None

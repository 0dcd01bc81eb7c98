"""Signals to a foreground container. It has no monitor: they are sent to its processes.

Theory of operation. The creator waits for the container and holds its ownership lock (container/registry/ownership.py).
While the container runs it has a directory like a detached container. The creator takes the place of the monitor, and
removes the directory at the end. It overwrites the state file with the final state: so a process that has the file open
can read it.
"""

from __future__ import annotations

import _signal  # signal imports enum
import os
import time

from minicontainer.errors import Error
from minicontainer.linux.process import pidfd_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.detached.client import Client

RELEASE_TIMEOUT = 20.0  # seconds that the creator may take to release the container's resources


def refuse(container: Client, what: str, why: str) -> None:
    """Error if the container is in the foreground, since ``what`` needs a monitor."""
    if container.config.foreground:
        creator = container.state.monitor
        of_process = "" if creator is None else f" of process {creator.pid}"
        raise Error(f"{what} {container.id[:12]}: is in the foreground{of_process}: {why}")


def send(container: Client, number: int) -> None:
    """Sends a signal to process 1; SIGKILL to all processes."""
    process, cgroup = container.state.process, container.open_cgroup()
    pidfd = -1 if process is None else process.pidfd()
    try:
        if number == _signal.SIGKILL and cgroup is not None:
            cgroup.kill()
        if pidfd >= 0:
            _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # the process has just ended
    finally:
        if pidfd >= 0:
            os.close(pidfd)
        if cgroup is not None:
            cgroup.close()


def stop(container: Client, number: int, timeout: float) -> None:
    """Sends the signal ``number``, SIGKILL after ``timeout`` seconds (below 0: never), and waits for the end."""
    process = container.state.process
    pidfd = -1 if process is None else process.pidfd()
    try:
        send(container, number)
        if pidfd >= 0 and not pidfd_wait(pidfd, None if timeout < 0 else timeout):
            send(container, _signal.SIGKILL)
            pidfd_wait(pidfd, RELEASE_TIMEOUT)
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    deadline = time.monotonic() + RELEASE_TIMEOUT
    while os.path.isdir(container.directory) and time.monotonic() < deadline:
        time.sleep(0.005)

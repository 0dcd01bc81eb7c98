"""What is done with a container in the foreground, which has no monitor: by its processes, since nobody is asked.

Theory of operation. Its maker waits for it, and has its claim (container/registry/ownership.py); while it runs it has a
directory as a detached one has, in which the maker stands for the monitor, and which goes with it. Its last state is
written into the file that is there, so that who has it open can read how it ended.
"""

from __future__ import annotations

import os
import signal
import time

from minicontainer.detached.client import Handle
from minicontainer.errors import Error
from minicontainer.linux.process import pidfd_wait

PATIENCE = 20.0  # seconds that its maker may take to give back what it had


def refuse(container: Handle, what: str, why: str) -> None:
    """Error where it is in the foreground, since ``what`` needs a monitor."""
    if container.config.foreground:
        maker = container.state.monitor
        who = "" if maker is None else f" of process {maker.pid}"
        raise Error(f"{what} {container.id[:12]}: is in the foreground{who}: {why}")


def send(container: Handle, number: int) -> None:
    """A signal to process 1; SIGKILL to all of it."""
    process, cgroup = container.state.process, container.open_cgroup()
    pidfd = -1 if process is None else process.pidfd()
    try:
        if number == signal.SIGKILL and cgroup is not None:
            cgroup.kill()
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # it has just ended
    finally:
        if pidfd >= 0:
            os.close(pidfd)
        if cgroup is not None:
            cgroup.close()


def stop(container: Handle, number: int, timeout: float) -> None:
    """The signal ``number``, a kill after ``timeout`` seconds (below 0: never), and the end of it all."""
    process = container.state.process
    pidfd = -1 if process is None else process.pidfd()
    try:
        send(container, number)
        if pidfd >= 0 and not pidfd_wait(pidfd, None if timeout < 0 else timeout):
            send(container, signal.SIGKILL)
            pidfd_wait(pidfd, PATIENCE)
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    deadline = time.monotonic() + PATIENCE
    while os.path.isdir(container.directory) and time.monotonic() < deadline:
        time.sleep(0.005)

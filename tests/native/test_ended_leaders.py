"""A process id that is still that of a session, though its process has ended: Linux 6.1 (the rig's) answers
pidfd_open(2) for it with EINVAL, later kernels with ESRCH."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator

import pytest

from minicontainer import linux
from minicontainer.linux import process

KERNELS = ("host", pytest.param("rig", marks=pytest.mark.needs("rig")))


@pytest.fixture
def ended_leader() -> Iterator[process.Process]:
    """The leader of a session, which has ended and is reaped; another process is still in its session."""
    read, write = os.pipe()
    leader = os.fork()
    if not leader:
        os.setsid()
        member = os.fork()
        if not member:
            signal.pause()
        os.write(write, str(member).encode())
        signal.pause()
    member = int(os.read(read, 20))
    os.close(write)
    os.close(read)
    known = process.Process(leader, linux.start_time(leader))
    os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    assert os.getsid(member) == leader
    yield known
    os.kill(member, signal.SIGKILL)


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_has_ended(ended_leader: process.Process, kernel: str) -> None:
    assert process.open_pidfd(ended_leader.pid) == -1
    assert ended_leader.pidfd() == -1
    assert not ended_leader.is_alive()
    with pytest.raises(OSError, match="pidfd_open") as caught:
        linux.pidfd_open(ended_leader.pid)
    assert caught.value.errno == errno.EINVAL or kernel == "host"

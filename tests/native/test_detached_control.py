"""Control of a container never waits: for input that its program does not read, or for others who talk to its
monitor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from box import CLI, HEEDING, until
from supplies import Run

from minicontainer.detached.container import Container
from minicontainer.errors import Error

pytestmark = pytest.mark.needs("root")

Make = Callable[..., Container]
MANY = 40  # more than a monitor keeps


@pytest.fixture
def stuffed(make: Make) -> Iterator[Container]:
    """One that does not read, to which more is said than anything between holds."""
    c = make("sleep", "1000", interactive=True)
    with attached(c, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        written = 0
        while written < 2_000_000:
            try:
                written += os.write(process.stdin.fileno(), bytes(65536))
            except BlockingIOError:
                if written and is_waiting(process):
                    break
        yield c


def is_waiting(process: subprocess.Popen[Any]) -> bool:
    """Whether it sleeps in poll(2): it cannot say more."""
    with open(f"/proc/{process.pid}/syscall", encoding="ascii") as f:
        return f.read().split()[0] in ("7", "73", "271")


@contextmanager
def attached(c: Container, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    """``minicontainer attach`` in the background."""
    with subprocess.Popen([*HEEDING, *CLI, "attach", c.id], **streams) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def test_stop_does_not_wait_for_input(stuffed: Container, minicontainer_cli: Run) -> None:
    assert minicontainer_cli("stop", "-t", "0", stuffed.id, timeout=60).returncode == 0
    assert stuffed.status == "exited"


def test_a_signal_does_not_wait_for_input(stuffed: Container, minicontainer_cli: Run) -> None:
    assert minicontainer_cli("kill", stuffed.id, timeout=60).returncode == 0
    assert stuffed.wait(60) == 137


def test_removal_does_not_wait_for_input(stuffed: Container, minicontainer_cli: Run) -> None:
    assert minicontainer_cli("rm", "-f", stuffed.id, timeout=60).returncode == 0
    assert not os.path.isdir(stuffed.directory)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_attach_ends_at_once(make: Make, number: signal.Signals) -> None:
    """The signal goes to the program too, which need not heed it."""
    c = make("sh", "-c", "trap 'echo heard' TERM HUP; echo ready; while :; do sleep 0.1; done", interactive=True)
    with attached(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        until(lambda: is_waiting(process))
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    until(lambda: b"heard" in b"".join(entry.data for entry in c.logs()))
    assert c.status == "running"


def test_attach_ends_at_once_with_its_input_blocked(stuffed: Container) -> None:
    with attached(stuffed, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        try:
            while True:
                os.write(process.stdin.fileno(), bytes(65536))
        except BlockingIOError:
            pass
        until(lambda: is_waiting(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert stuffed.status == "running"


def test_attach_ends_at_once_with_its_output_blocked(make: Make) -> None:
    c = make("sh", "-c", "while :; do seq 1 1000; sleep 0.01; done")
    read, write = os.pipe()
    with attached(c, stdin=subprocess.DEVNULL, stdout=write) as process:
        os.close(write)
        until(lambda: wchan(process) == "pipe")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    os.close(read)


def wchan(process: subprocess.Popen[bytes]) -> str:
    """``pipe`` where it waits for a reader: write(2) to standard output."""
    with open(f"/proc/{process.pid}/syscall", encoding="ascii") as f:
        words = f.read().split()
    return "pipe" if words[0] in ("1", "64") and words[1] == "0x1" else words[0]


def test_many_who_say_nothing_shut_nobody_out(make: Make, minicontainer_cli: Run) -> None:
    c = make("sleep", "1000")
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(c.connect())
        assert minicontainer_cli("stop", "-t", "0", c.id, timeout=60).returncode == 0
    assert c.status == "exited"


@pytest.mark.parametrize("remove", [False, True])
def test_many_wait(make: Make, minicontainer_cli: Run, remove: bool) -> None:
    """Each hears the exit code."""
    c = make("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done", remove=remove)
    code = f"import minicontainer as mc\nc = mc.Container({c.id!r})\nprint('begun', flush=True)\nprint(c.wait())"
    words = [*HEEDING, CLI[0], "-c", code]
    waiting = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(12)]
    for process in waiting:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    until(lambda: all(map(is_waiting, waiting)))
    assert minicontainer_cli("stop", c.id, timeout=60).returncode == 0
    said = [process.communicate(timeout=60)[0] for process in waiting]
    assert said == ["5\n"] * len(waiting)


def test_who_was_dropped_is_heard_again(make: Make) -> None:
    c = make("sh", "-c", "read line; echo got $line; sleep 1000", interactive=True)
    with c.attach() as a, ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(c.connect())
        until(lambda: is_closed(a.socket))
        a.send(b"word\n")
        until(lambda: b"got word\n" in b"".join(entry.data for entry in c.logs()))


def is_closed(s: socket.socket) -> bool:
    try:
        return not s.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def test_input_of_two_is_whole(make: Make) -> None:
    """What waits is neither lost nor torn, whoever else talks meanwhile."""
    c = make("sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; wc -c; rm /tmp/go", interactive=True)
    with c.attach() as a:
        a.socket.setblocking(False)
        sent = 0
        try:
            while True:
                a.send(bytes(16384))
                sent += 16384
        except BlockingIOError:
            pass
        c.kill(signal.SIGCONT)
        assert c.run(["touch", "/tmp/go"]).returncode == 0
        a.socket.setblocking(True)
        a.end_input()
        assert c.wait(60) == 0
    assert [entry.data for entry in c.logs()] == [f"{sent}\n".encode()]


def fill(c: Container, stack: ExitStack) -> bool:
    """Connects once more; False where there is no place for that."""
    try:
        stack.enter_context(c.connect())
    except BlockingIOError:
        return False
    return True


def test_a_monitor_that_stands_still_is_said_to(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from minicontainer.detached import client

    c = make("sleep", "1000")
    monitor = c.state.monitor
    assert monitor is not None
    monkeypatch.setattr(client, "MONITOR_TIMEOUT", 1.0)
    os.kill(monitor.pid, signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            while fill(c, stack):
                pass
            with pytest.raises(Error, match="its monitor does not answer"):
                c.kill(signal.SIGCONT)
    finally:
        os.kill(monitor.pid, signal.SIGCONT)
    c.stop(0)


def test_a_monitor_that_ends_before_a_request_leaves_no_descriptor(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was still there when its socket was opened, and is gone when the request is sent."""
    c = make("true")
    c.wait(60)

    def connect(_: Container) -> socket.socket:
        client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.close()
        return client

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(Container, "connect", connect)
    c.remove(force=True)
    assert os.listdir("/proc/self/fd") == before

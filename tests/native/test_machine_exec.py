"""``exec`` in a machine, without one: a monitor that makes none (fakevmm.c), the guest's init as a process of this host
(guestinit.py), and a thread that connects clients to it, as the socket device does (csrc/virtio/vsock.c)."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from box import CLI, until
from fakemachine import fake, pretend, program
from guestinit import Init, built, received, shell

import minicontainer as mc
from minicontainer.detached import vsock
from minicontainer.errors import Error, ProgramError, SpecError
from minicontainer.native import lib

__all__ = ["built", "fake", "pretend", "program"]  # fixtures
pytestmark = pytest.mark.needs("root", "gcc")

NAMESPACES = "CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWCGROUP"
Serve = Callable[["Way", socket.socket, int], None]


@pytest.fixture
def init(built: Path) -> Iterator[Init]:
    """An init whose program ends with its input."""
    with Init(built) as running:
        running.start(shell("echo ready; read line; exit 3"), NAMESPACES)
        assert running.stdout.recv(100) == b"ready\n"
        yield running


class Way:
    """Serves the clients of a container by a function, with the port that they ask for."""

    def __init__(self, serve: Serve, listener: socket.socket) -> None:
        self.serve, self.listener = serve, listener
        self.ends: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        listener.setblocking(True)
        self.run(self.accept)

    def run(self, function: Callable[..., None], *args: socket.socket) -> None:
        self.threads.append(threading.Thread(target=function, args=args, daemon=True))
        self.threads[-1].start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # it was shut down
                return
            self.ends.append(client)
            line = b""
            while not line.endswith(b"\n"):
                line += client.recv(1)
            self.serve(self, client, int(line.removeprefix(b"CONNECT ")))

    def pump(self, source: socket.socket, to: socket.socket) -> None:
        """Moves bytes until the end, which is that of both directions if one side has gone."""
        try:
            while data := source.recv(65536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            end(source, to)

    def close(self) -> None:
        end(self.listener, *self.ends)
        for thread in self.threads:
            thread.join(30)
        for socket_ in (self.listener, *self.ends):
            socket_.close()


def end(*sockets: socket.socket) -> None:
    for socket_ in sockets:
        with suppress(OSError):
            socket_.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def reached(
    fake: Callable[..., mc.Container], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Serve], mc.Container]]:
    """Makes a container whose clients a function serves."""
    ways: list[Way] = []

    def make(serve: Serve) -> mc.Container:
        def listen(directory: int) -> int:
            fd = listen_(directory)
            ways.append(Way(serve, socket.socket(fileno=os.dup(fd))))
            return fd

        listen_ = vsock.listen
        monkeypatch.setattr(vsock, "listen", listen)
        return fake("runs")

    yield make
    for way in ways:
        way.close()


@pytest.fixture
def container(reached: Callable[[Serve], mc.Container], init: Init) -> mc.Container:
    def serve(way: Way, client: socket.socket, port: int) -> None:
        guest = socket.socket(socket.AF_UNIX)
        way.ends.append(guest)
        guest.connect(init.listener.getsockname() if port == lib.MC_GUEST_PORT else b"\0%05x" % port)
        client.sendall(b"OK 1073741824\n")
        way.run(way.pump, client, guest)
        way.run(way.pump, guest, client)

    return reached(serve)


def test_streams_and_exit_code(container: mc.Container) -> None:
    data = os.urandom(3_000_000)
    done = container.run(["sh", "-c", "tee /dev/stderr; exit 7"], input=data, capture_output=True)
    assert (done.returncode, done.stdout == data, done.stderr == data) == (7, True, True)
    assert {event.side for event in done.timeline} == {"parent", "child", "guest"}


def test_options(container: mc.Container) -> None:
    script = 'id -u; id -g; pwd; echo "$A"; echo $HOSTNAME; grep ^CapEff /proc/self/status'
    options = {"user": "12:34", "cwd": "/usr", "env": {"A": "b  c"}}
    done = container.run(["sh", "-c", script], text=True, capture_output=True, **options)  # type: ignore[call-overload]
    assert done.stdout.split("\n")[:5] == ["12", "34", "/usr", "b  c", container.id[:12]]
    assert done.stdout.endswith("CapEff:\t0000000000000000\n")


def test_signals(container: mc.Container) -> None:
    script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done"
    with container.exec(["sh", "-c", script], stdout=mc.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"usr1\n"
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM


def test_kill_ends_the_process_in_the_guest(container: mc.Container, tmp_path: Path) -> None:
    script = f"echo $$ >{tmp_path}/pid; exec sleep 1003"
    with container.exec(["sh", "-c", script]) as process:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(encoding="ascii"))
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    until(lambda: subprocess.run(["pgrep", "-f", "sleep 1003"], check=False, capture_output=True).returncode)


def test_the_end_of_the_machines_program_is_that_of_all(container: mc.Container, init: Init) -> None:
    with container.exec(["sleep", "1000"]) as process:
        init.stdin.close()
        assert init.exited().status == 3
        assert process.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(("word", "code"), [("/no/such", 127), ("/etc", 126)])
def test_a_program_that_cannot_run(container: mc.Container, word: str, code: int) -> None:
    with pytest.raises(ProgramError) as caught:
        container.run([word])
    assert caught.value.exit_code == code


def test_a_directory_that_is_not_there(container: mc.Container) -> None:
    with pytest.raises(SpecError, match=r"cwd.*/no/such"):
        container.run(["true"], cwd="/no/such")


def test_a_terminal(container: mc.Container) -> None:
    script = "tty; read line; echo got $line; stty size; exit 4"
    with container.exec(["sh", "-c", script], tty=True) as process:
        name = received(process.terminal, rb"pts/\d+\r\n").strip().decode()
        fcntl.ioctl(process.terminal, termios.TIOCSWINSZ, struct.pack("=HHHH", 33, 99, 0, 0))
        until(lambda: b"33 99" in container.run(["stty", "-F", name, "size"], capture_output=True).stdout)
        os.write(process.terminal, b"typed\n")
        assert received(process.terminal, rb"33 99\r\n") == b"typed\r\ngot typed\r\n33 99\r\n"
        assert process.wait(60) == 4


def test_the_command_line(container: mc.Container) -> None:
    def run(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*CLI, "exec", *words], capture_output=True, check=False, timeout=60, **options)  # type: ignore[call-overload,no-any-return]

    done = run("-i", "-e", "A=1", container.id, "sh", "-c", "cat; echo $A >&2; exit 9", input=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"in", b"1\n")
    done = run(container.id, "/no/such")
    assert (done.returncode, done.stdout) == (127, b"")
    assert b"/no/such" in done.stderr
    done = run(container.id, "sh", "-c", "kill -KILL $$")
    assert done.returncode == 137


def test_one_that_nobody_waits_for(container: mc.Container, tmp_path: Path) -> None:
    subprocess.run([*CLI, "exec", "-d", container.id, "sh", "-c", f"sleep 0.2; echo >{tmp_path}/done"], check=True)
    until((tmp_path / "done").exists)


def test_a_paused_machine(container: mc.Container) -> None:
    container.pause()
    with pytest.raises(Error, match="is paused"):
        container.run(["true"])
    container.unpause()


# ---- guests that are not as they should be


def test_a_guest_without_vsock(reached: Callable[[Serve], mc.Container]) -> None:
    container = reached(lambda _, client, port: end(client))
    with pytest.raises(Error, match="CONFIG_VIRTIO_VSOCKETS"):
        container.run(["true"])


def test_a_guest_that_does_not_answer(
    reached: Callable[[Serve], mc.Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vsock, "TIMEOUT", 0.2)
    with pytest.raises(Error, match="has not answered"):
        reached(lambda _, client, port: None).run(["true"])


LISTEN = struct.pack("=III", lib.MC_GUEST_LISTEN, 4, 5)
STARTED = struct.pack("=II", lib.MC_GUEST_STARTED, 24) + bytes(24)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (struct.pack("=II", 99, 0), "sent message 99"),
        (struct.pack("=II", lib.MC_GUEST_LISTEN, 1 << 30), "message of 1073741824 bytes"),
        (struct.pack("=II", lib.MC_GUEST_LISTEN, 2) + b"ab", "too short"),
        (LISTEN + struct.pack("=II", 98, 0), "sent message 98"),
        (LISTEN[:7], "Connection reset by peer"),
    ],
)
def test_a_guest_that_talks_nonsense(reached: Callable[[Serve], mc.Container], said: bytes, reason: str) -> None:
    with pytest.raises((Error, OSError), match=reason):
        reached(saying(said)).run(["true"])


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (struct.pack("=IIiIQQQ", lib.MC_GUEST_EXITED, 32, 300, 0, 0, 0, 0), 44),
        (struct.pack("=IIiIQQQ", lib.MC_GUEST_EXITED, 32, -signal.SIGSTOP, 0, 0, 0, 0), 128),
        (struct.pack("=IIiIQQQ", lib.MC_GUEST_EXITED, 32, -(2**31), 0, 0, 0, 0), 128),
        (struct.pack("=IIiIQQQ", lib.MC_GUEST_SIGNAL, 32, 0, 0, 0, 0, 0), 125),
        (b"", -signal.SIGKILL),
    ],
)
def test_ends_that_a_guest_claims(reached: Callable[[Serve], mc.Container], said: bytes, status: int) -> None:
    assert reached(saying(LISTEN + STARTED + said)).run(["true"]).returncode == status


def saying(words: bytes) -> Serve:
    """Accepts every connection, and says so much on the first one."""
    streams: list[socket.socket] = []

    def serve(_: Way, client: socket.socket, port: int) -> None:
        client.sendall(b"OK 1\n")
        if port != lib.MC_GUEST_PORT:
            streams.append(client)
            if len(streams) == 3:
                for stream in streams:
                    stream.shutdown(socket.SHUT_WR)
            return
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        streams.clear()

    return serve


# ---- the socket


def test_the_socket_is_its_owners(container: mc.Container) -> None:
    status = os.stat(f"{container.directory}/vsock")
    assert status.st_mode & 0o777 == 0o600
    container.stop()
    with pytest.raises(Error, match="is not running"):
        container.run(["true"])


def test_a_port_at_which_nobody_listens(reached: Callable[[Serve], mc.Container]) -> None:
    container = reached(lambda _, client, port: end(client))
    directory = os.open(container.directory, os.O_RDONLY)
    with pytest.raises(Error, match="port 77 of the guest"):
        vsock.connect(directory, 77)
    os.close(directory)

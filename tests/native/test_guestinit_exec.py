"""Further processes beside the program of a microVM's guest (csrc/guest/exec.c): what test_guestinit.py is for init."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import until
from guestinit import STREAMS, Exec, Init, built, received, shell, terminal

from minicontainer import plan as p
from minicontainer.native import lib
from minicontainer.plan import Plan, Slot

__all__ = ["built"]  # a fixture
pytestmark = pytest.mark.needs("root", "gcc")

BIG = os.urandom(1 << 20) * 4
NAMESPACES = "CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWUTS"


def joining(plan: Plan) -> Plan:
    """The plan of a process that joins the namespaces of the program (container/execplan.py)."""
    steps = [p.setns(Slot("process"), NAMESPACES), p.fork_sibling(Slot("cgroup")), *plan.steps]
    return Plan(steps, [*plan.inputs, "process", "cgroup"])


def joined(script: str) -> Plan:
    return joining(shell(script))


@pytest.fixture
def init(built: Path) -> Iterator[Init]:
    """An init whose program waits for the end of its input."""
    with Init(built) as running:
        running.start(shell("hostname inside; echo ready; read line; exit 3"), NAMESPACES)
        assert running.stdout.recv(100) == b"ready\n"
        yield running


def end(init: Init) -> None:
    """Ends the program, which nothing has disturbed."""
    init.stdin.close()
    assert init.exited().status == 3


def test_output_exit_code_and_namespaces(init: Init) -> None:
    with Exec(init) as process:
        started = process.start(joined("hostname; echo $(( $$ > 1 )) >&2; exit 7"))
        assert started.nrecords == len(joined("").steps)
        assert process.communicate() == (b"inside\n", b"1\n")
        exited = process.exited()
        assert exited.status == 7
        assert exited.rusage[2] > 100
    end(init)


def test_much_input_and_output(init: Init) -> None:
    with Exec(init) as process:
        process.start(joined("tee /dev/stderr"))
        assert process.communicate(BIG) == (BIG, BIG)
        assert process.exited().status == 0
    end(init)


def test_many_at_a_time(init: Init) -> None:
    processes = [Exec(init) for _ in range(20)]
    for number, process in enumerate(processes):
        process.start(joined(f"read line; echo $line {number}; exit {number}"))
    for number, process in enumerate(processes):
        assert process.communicate(b"hello\n")[0] == b"hello %d\n" % number
        assert process.exited().status == number
        for socket_ in process.ends:
            socket_.close()
    end(init)


def test_signals_and_death_by_one(init: Init) -> None:
    with Exec(init) as process:
        process.start(joined("trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done"))
        assert process.stdout.recv(100) == b"ready\n"
        process.signal(signal.SIGUSR1)
        assert process.stdout.recv(100) == b"usr1\n"
        process.signal(signal.SIGTERM)
        assert process.exited().status == -signal.SIGTERM
    end(init)


def test_a_terminal_and_its_window(init: Init) -> None:
    sized = "until stty size | grep -v '^0 0'; do :; done; read line"
    script = f"{sized}; trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.01; done"
    with Exec(init, STREAMS[:2]) as process:
        process.start(joining(terminal(script)), tty=True, window=(31, 97))
        assert received(process.stdout, rb"\n") == b"31 97\r\n"
        process.stdin.sendall(b"typed\n")
        received(process.stdout, b"ready\r\n")
        process.resize(50, 150)
        assert received(process.stdout, b"150\r\n") == b"50 150\r\n"
        assert process.exited().status == 6
    end(init)


def test_a_host_that_goes_ends_its_process_alone(init: Init, tmp_path: Path) -> None:
    with Exec(init) as other:
        other.start(joined("read line; exit 4"))
        with Exec(init) as process:
            process.start(joined(f"echo >{tmp_path}/up; exec sleep 1000"))
            until((tmp_path / "up").exists)
            until(lambda: processes_of(init) == 5)
        until(lambda: processes_of(init) == 3)
        other.stdin.sendall(b"\n")
        assert other.exited().status == 4
    end(init)


def processes_of(init: Init) -> int:
    """How many processes init has, below it: its program, and those of exec with what they have started."""
    waiting, count = [init.child.pid], -1
    while waiting:
        pid = waiting.pop()
        count += 1
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        waiting += map(int, text.split())
    return count


def test_the_end_of_the_program_ends_them(init: Init) -> None:
    with Exec(init) as process:
        process.start(joined("trap '' TERM HUP; echo ready; sleep 1000"))
        assert process.stdout.recv(100) == b"ready\n"
        end(init)
        said = b""
        while part := process.control.recv(100):
            said += part
        status = struct.pack("=i", -signal.SIGKILL)
        assert said == b"" or (said[:4] == struct.pack("=I", lib.MC_GUEST_EXITED) and said[8:12] == status)
        assert process.stdout.recv(1) == b""


def test_a_program_that_is_not_there(init: Init) -> None:
    plan = joined("")
    plan = Plan([*plan.steps[:-1], p.execve(["/no/such"], ["such"], [])], plan.inputs)
    with Exec(init) as process:
        failed, text = process.failed(plan)
        assert (failed.kind, failed.error, text) == (lib.MC_GUEST_STEP_FAILED, errno.ENOENT, "")
        assert (failed.step, failed.program.path) == (len(plan.steps) - 1, -1)
    end(init)


def test_a_host_without_the_streams(init: Init) -> None:
    with Exec(init, STREAMS[:1]) as process:
        failed, text = process.failed(joined("exit 0"))
        assert (failed.kind, failed.error, text) == (lib.MC_GUEST_INIT_FAILED, errno.EAGAIN, "accept(streams)")
    end(init)


def test_what_is_no_start(init: Init) -> None:
    with Exec(init) as process:
        process.control.sendall(struct.pack("=II", lib.MC_GUEST_RESIZE, 4))
        failed, _ = process.expect(lib.MC_GUEST_FAILED, "struct mc_guest_failed")
        assert (failed.kind, failed.error) == (lib.MC_GUEST_INIT_FAILED, errno.EPROTO)
    end(init)


def test_no_descriptor_of_init_is_left(init: Init) -> None:
    """Beside the three streams, the program of a plan without close_range has none."""
    ls = p.execve(["/bin/ls", "/usr/bin/ls"], ["ls", "/proc/self/fd"], [])
    streams = [p.dup3(Slot(name), number) for number, name in enumerate(STREAMS)]
    with Exec(init) as process:
        process.start(joining(Plan([*streams, p.reset_signals(), ls], STREAMS)))
        assert process.communicate() == (b"0\n1\n2\n3\n", b"")  # 3: the directory
        assert process.exited().status == 0
    end(init)


def test_a_closed_input_and_output(init: Init) -> None:
    with Exec(init) as process:
        process.start(joined("cat; exec >&-; read line <&2; exit 5"))
        process.stdin.sendall(b"bytes")
        process.stdin.shutdown(socket.SHUT_WR)
        assert process.communicate() == (b"bytes", b"")
        assert process.exited().status == 5
    end(init)

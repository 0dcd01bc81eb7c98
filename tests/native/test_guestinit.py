"""The init of a microVM's guest (csrc/guest/): START to EXITED, its streams, signals, terminal, and what fails."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import until
from guestinit import Init, built, payload, program, received, shell, terminal

from minicontainer import plan as p
from minicontainer.native import LIBEXEC, ffi, lib
from minicontainer.plan import Plan, Slot

__all__ = ["built"]  # a fixture
pytestmark = pytest.mark.needs("root", "gcc")

BIG = os.urandom(1 << 20) * 10
MANY = 10 << 20


@pytest.fixture
def init(built: Path) -> Iterator[Init]:
    with Init(built) as running:
        yield running


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


# ---- the program


def test_output_and_exit_code(init: Init) -> None:
    init.start(shell("echo out; echo err >&2; exit 7"))
    assert init.communicate() == (b"out\n", b"err\n")
    assert init.exited().status == 7


def test_ready_says_when(init: Init) -> None:
    ready = init.ready()
    assert 0 < ready.entry_ns <= ready.ready_ns


def test_started_has_the_records(init: Init) -> None:
    plan = shell("exit 0", steps=[p.call("getpid")])
    started, rest = init.start(plan, "CLONE_NEWPID")
    records = [struct.unpack_from("=QQq", rest, 24 * i) for i in range(started.nrecords)]
    assert len(rest) == 24 * len(plan.steps) == 24 * len(records)
    assert records[3][2] == 1  # getpid
    assert all(start for start, _, _ in records)
    assert 0 < started.start_ns <= records[0][0] <= records[-1][0] <= started.end_ns
    assert started.pid == 2
    assert init.exited().status == 0


def test_death_by_a_signal(init: Init) -> None:
    init.start(shell("kill -KILL $$"))
    assert init.exited().status == -signal.SIGKILL


def test_a_plan_without_exec(init: Init) -> None:
    init.start(Plan([p.write(Slot("stdout"), "hello")], ["stdout"]))
    assert init.communicate() == (b"hello", b"")
    assert init.exited().status == 0


def test_usage(init: Init) -> None:
    init.start(shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))
    user, system, resident = init.exited().rusage
    assert user + system > 1000
    assert resident > 100


def test_processes_that_the_kernel_killed_for_memory(built: Path, tmp_path: Path) -> None:
    """Those since the program's start; the file is that of the kernel, before and after it."""
    before, others = Path("/proc/vmstat").read_text(encoding="ascii").split("\noom_kill ")
    _, newline, rest = others.partition("\n")
    (tmp_path / "vmstat").write_text(f"{before}\noom_kill 7{newline}{rest}", encoding="ascii")
    (tmp_path / "later").write_text(f"{before}\noom_kill 12{newline}{rest}", encoding="ascii")
    with open(tmp_path / "vmstat", "rb") as file, Init(built, vmstat=file.fileno()) as init:
        init.start(shell(f"cat {tmp_path}/later >{tmp_path}/vmstat; kill -KILL $$"))
        exited = init.exited()
    assert (exited.status, exited.oom_kills) == (-signal.SIGKILL, 5)


def test_values_of_slots(init: Init) -> None:
    plan = shell("umask", steps=[p.call("umask", Slot("mask"))])
    init.start(Plan(plan.steps, [*plan.inputs, "mask"]), numbers={"mask": 0o27})
    assert init.communicate()[0] == b"0027\n"
    assert init.exited().status == 0


def test_no_descriptor_is_left_in_the_program(init: Init) -> None:
    """The numbers below those of the program's own descriptors are the three streams, without a close_range."""
    ls = p.execve(["/bin/ls", "/usr/bin/ls"], ["ls", "/proc/self/fd"], [])
    streams = [p.dup3(Slot(name), number) for number, name in enumerate(("stdin", "stdout", "stderr"))]
    init.start(Plan([*streams, p.reset_signals(), ls], ["stdin", "stdout", "stderr"]))
    assert init.communicate() == (b"0\n1\n2\n3\n", b"")  # 3: the directory


# ---- its input


def test_the_end_of_the_input(init: Init) -> None:
    init.start(program("cat"))
    assert init.communicate(b"some input") == (b"some input", b"")
    assert init.exited().status == 0


def test_input_waits_for_the_program(init: Init) -> None:
    init.start(shell("read a; echo $a; read b; echo $b; read c || echo end"))
    for line in (b"one\n", b"two\n"):
        init.stdin.sendall(line)
        assert init.stdout.recv(100) == line
    init.stdin.shutdown(socket.SHUT_WR)
    assert init.communicate()[0] == b"end\n"
    assert init.exited().status == 0


def test_an_input_that_ends_before_the_start(init: Init) -> None:
    """As a port that the host has opened and closed, or has not opened: init waits for a while, then it is the end."""
    init.stdin.close()
    init.start(program("cat"))
    assert init.communicate() == (b"", b"")
    assert init.exited().status == 0


def test_an_input_that_is_whole_before_the_start(init: Init) -> None:
    init.stdin.sendall(b"early")
    init.stdin.close()
    init.start(program("cat"))
    assert init.communicate() == (b"early", b"")
    assert init.exited().status == 0


def test_an_input_that_nobody_reads_stops(init: Init, tmp_path: Path) -> None:
    init.start(shell(f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; exec cat"))
    init.stdin.setblocking(False)
    sent = 0
    while select.select([], [init.stdin], [], 0.3)[1]:
        sent += init.stdin.send(b"x" * 65536)
    assert 65536 < sent < 4 << 20
    init.stdin.settimeout(10)
    (tmp_path / "go").touch()
    assert init.communicate(b"after") == (b"x" * sent + b"after", b"")
    assert init.exited().status == 0


def test_an_input_that_the_program_closes(init: Init) -> None:
    init.start(shell("exec <&-; read x; echo closed; sleep 1000"))
    assert init.stdout.recv(100) == b"closed\n"
    until(lambda: select.select([init.stdin], [], [], 0)[0])
    with pytest.raises(BrokenPipeError):
        init.stdin.sendall(b"x")
    init.signal(signal.SIGTERM)
    assert init.exited().status == -signal.SIGTERM


def test_the_input_ends_with_the_program(init: Init) -> None:
    init.start(shell("sleep 1000 & exit"))
    until(lambda: select.select([init.stdin], [], [], 0)[0])
    assert init.stdin.recv(1) == b""
    assert init.exited().status == 0


# ---- its output


def test_bytes_are_what_they_were(init: Init) -> None:
    init.start(program("cat"))
    assert init.communicate(BIG) == (BIG, b"")
    assert init.exited().status == 0


def test_both_outputs(init: Init) -> None:
    init.start(shell(f"head -c {MANY} /dev/zero >&2 & head -c {MANY} /dev/zero; wait"))
    assert init.communicate() == (bytes(MANY), bytes(MANY))
    assert init.exited().status == 0


def test_a_slow_reader_stops_the_program(init: Init) -> None:
    init.start(program("head", "-c", str(MANY), "/dev/zero"))
    assert not select.select([init.control], [], [], 0.5)[0]  # it has not exited
    assert init.communicate() == (bytes(MANY), b"")
    assert init.exited().status == 0


def test_a_slow_reader_stops_no_other_stream(init: Init) -> None:
    init.start(shell(f"head -c {MANY} /dev/zero & sleep 0.1; cat >&2; wait"))
    init.stdin.sendall(b"in")
    assert init.stderr.recv(100) == b"in"
    assert init.communicate() == (bytes(MANY), b"")
    assert init.exited().status == 0


@pytest.fixture
def narrow(built: Path) -> Iterator[Init]:
    """An init whose outputs hold little."""
    with Init(built, room=4096) as running:
        yield running


def test_exited_comes_after_all_output(narrow: Init) -> None:
    """Here the program's pipe and init's buffer hold it all when the program ends."""
    narrow.start(program("head", "-c", "100000", "/dev/zero"))
    until(lambda: not children(narrow.child.pid))
    assert not select.select([narrow.control], [], [], 0.3)[0]
    assert narrow.communicate() == (bytes(100000), b"")
    assert narrow.exited().status == 0


def test_an_output_that_nobody_reads_any_more(init: Init) -> None:
    init.stdout.close()
    init.start(program("yes"))
    assert init.exited().status == -signal.SIGPIPE


def test_an_output_that_ends_while_the_program_runs(init: Init) -> None:
    init.start(shell("echo last; exec >&-; read line"))
    assert init.stdout.recv(100) == b"last\n"
    assert init.stdout.recv(100) == b""
    init.stdin.sendall(b"\n")
    assert init.exited().status == 0


# ---- processes


@pytest.mark.parametrize("clone", ["0", "CLONE_NEWPID"])
def test_the_end_of_the_program_is_the_end_of_all(init: Init, clone: str) -> None:
    """Also of those that hold its output."""
    init.start(shell("sleep 1000 & setsid sleep 1000 & echo started"), clone)
    assert init.communicate() == (b"started\n", b"")
    assert init.exited().status == 0


def test_orphans_are_reaped(init: Init) -> None:
    init.start(shell("(sleep 0.01 & sleep 0.02 & exit); echo; read line; exit 5"))
    assert init.stdout.recv(10) == b"\n"
    until(lambda: len(children(init.child.pid)) == 1)
    init.stdin.sendall(b"\n")
    assert init.exited().status == 5


def test_signals_are_forwarded(init: Init) -> None:
    init.start(shell("trap 'echo usr1' USR1; trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"))
    assert init.stdout.recv(100) == b"ready\n"
    init.signal(signal.SIGUSR1)
    assert init.stdout.recv(100) == b"usr1\n"
    init.signal(signal.SIGTERM)
    assert init.exited().status == 3


def test_a_signal_for_process_1_of_a_namespace(init: Init) -> None:
    """The kernel ignores one without a handler, but SIGKILL (pid_namespaces(7))."""
    init.start(shell("echo ready; while :; do sleep 1; done"), "CLONE_NEWPID")
    assert init.stdout.recv(100) == b"ready\n"
    init.signal(signal.SIGTERM)
    assert not select.select([init.control], [], [], 0.3)[0]
    init.signal(signal.SIGKILL)
    assert init.exited().status == -signal.SIGKILL


# ---- the host goes


def test_a_host_that_goes_ends_all(init: Init) -> None:
    started, _ = init.start(shell("sleep 1000 & sleep 1000"))
    assert started.pid > 0
    init.control.close()
    assert init.child.wait() == 2


def test_a_host_that_goes_while_output_is_left(narrow: Init) -> None:
    narrow.start(program("head", "-c", "100000", "/dev/zero"))
    until(lambda: not children(narrow.child.pid))
    narrow.control.close()
    assert narrow.child.wait() == 2


# ---- what fails


def test_a_program_that_is_not_there(init: Init) -> None:
    plan = program("/no/such")
    failed, text = init.failed(plan)
    assert (failed.kind, failed.error) == (lib.MC_GUEST_STEP_FAILED, errno.ENOENT)
    assert (failed.step, failed.program.path, text) == (len(plan.steps) - 1, -1, "")
    assert failed.nrecords == len(plan.steps)


def test_a_program_that_is_none(init: Init, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"no program")
    file.chmod(0o755)
    failed, _ = init.failed(program(str(file)))
    assert (failed.kind, failed.error) == (lib.MC_GUEST_STEP_FAILED, errno.ENOEXEC)
    assert failed.program.path == 0
    assert bytes(ffi.buffer(failed.program.head, failed.program.length)) == b"no program"


def test_a_step_that_fails(init: Init) -> None:
    failed, _ = init.failed(shell("exit 0", steps=[p.call("getpid"), p.chdir("/no/such")]))
    assert (failed.kind, failed.error, failed.step) == (lib.MC_GUEST_STEP_FAILED, errno.ENOENT, 4)
    assert 0 < failed.start_ns < failed.end_ns


def test_a_child_that_is_killed_in_a_step(init: Init) -> None:
    failed, _ = init.failed(shell("exit 0", steps=[p.call("setsid"), p.call("kill", 0, int(signal.SIGKILL))]))
    assert (failed.kind, failed.error, failed.step) == (lib.MC_GUEST_STEP_ENDED, errno.ECANCELED, 4)
    assert failed.status == -signal.SIGKILL


def test_a_clone_that_fails(init: Init) -> None:
    failed, _ = init.failed(shell("exit 0"), "CLONE_NEWNS|CLONE_FS")
    assert (failed.kind, failed.error, failed.step) == (lib.MC_GUEST_CLONE_FAILED, errno.EINVAL, -1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"magic": 1}, "START(another version)"),
        ({"flags": 6}, "START(another version)"),
        ({"plan": 4}, "START(plan)"),
        ({"plan": 1 << 20}, "START(plan)"),
        ({"output": 3}, "START(slots)"),
        ({"report": -2}, "START(slots)"),
        ({"initial_slots": 82}, "START(slots)"),
        ({"initial_slots": 0xFFFFFFFC}, "START(slots)"),
        ({"flags": 1}, "START(terminal without a socket)"),
        ({"filter": 2, "filter_data": 88, "filter_size": 0xFFFFFFFF}, "START(filter)"),
        ({"tag": 0xFFFFFFFF}, "START(tag)"),
        ({"tag": 88, "realtime_ns": 5}, "START(no machine)"),
        ({"image": 96}, "START(image)"),
        ({"tag": 88, "image": 0xFFFFFFFF}, "START(image)"),
        ({"init": 2}, "open(descriptors of the plan)"),
    ],
)
def test_what_is_no_start(init: Init, fields: dict[str, int], text: str) -> None:
    failed, said = init.failed(payload(shell("exit 0"), fields=fields))
    assert (failed.kind, said, failed.step) == (lib.MC_GUEST_INIT_FAILED, text, -1)
    assert failed.error == (errno.ENOENT if "init" in fields else errno.EINVAL)


@pytest.mark.parametrize(
    "frame", [struct.pack("=II", 17, 4), struct.pack("=II", 16, 8), struct.pack("=II", 16, 1 << 30)]
)
def test_a_frame_that_is_no_start(init: Init, frame: bytes) -> None:
    init.ready()
    init.control.sendall(frame)
    failed, said = init.failure()
    assert (failed.kind, failed.error, said) == (lib.MC_GUEST_INIT_FAILED, errno.EPROTO, "control(START)")


def test_a_start_of_another_length(init: Init) -> None:
    failed, said = init.failed(payload(shell("exit 0"), fields={"size": 100}))
    assert (failed.error, said) == (errno.EPROTO, "control(START)")


@pytest.mark.parametrize(
    "frame", [struct.pack("=II", 99, 0), struct.pack("=IIQ", 17, 8, 9), struct.pack("=II", 16, 80)]
)
def test_a_frame_that_is_unknown_while_the_program_runs(init: Init, frame: bytes) -> None:
    init.start(shell("sleep 1000"))
    init.control.sendall(frame)
    failed, said = init.failure()
    assert (failed.kind, failed.error, said) == (lib.MC_GUEST_INIT_FAILED, errno.EPROTO, "control(frame)")


def test_a_long_plan(init: Init) -> None:
    init.start(shell("echo $#", env=[f"V{i}={'x' * 100000}" for i in range(12)]))
    assert init.communicate()[0] == b"0\n"
    assert init.exited().status == 0


def test_frames_in_pieces(init: Init) -> None:
    """A port gives what it has."""
    init.start(shell("trap 'exit 4' USR1; echo; while :; do sleep 0.01; done"))
    init.stdout.recv(1)
    for byte in struct.pack("=IIi", lib.MC_GUEST_SIGNAL, 4, signal.SIGUSR1):
        init.control.sendall(bytes([byte]))
    assert init.exited().status == 4


# ---- init-helper


def staged(script: str, *, name: str = "exec", filter_: bytes = b"", path: str = "/bin/sh") -> Plan:
    """The plan of a program that csrc/helpers/init.c executes (container/program/execute.py)."""
    steps = [p.dup3(Slot("report"), 3), p.call("dup3", Slot("init"), 4, p.const("O_CLOEXEC"))]
    steps += [p.dup3(Slot("filter"), 5)] if filter_ else []
    plan = shell("", steps=steps)
    argv = [f"minicontainer-{name}", "", str(len(filter_) // 8), "1", path, "sh", "-c", script]
    last = [p.close_range(6 if filter_ else 5), p.prctl("PR_SET_NO_NEW_PRIVS", 1), p.reset_signals()]
    inputs = [*plan.inputs, "init", "report", *(["filter"] if filter_ else [])]
    return Plan([*plan.steps[:-4], *last, p.execveat(4, argv, ["PATH=/usr/bin:/bin"])], inputs)


@pytest.fixture
def helped(built: Path) -> Iterator[Init]:
    with open(f"{LIBEXEC}/init", "rb") as helper, Init(built, helper.fileno()) as running:
        yield running


@pytest.mark.parametrize("name", ["exec", "init"])
def test_init_helper(helped: Init, name: str) -> None:
    helped.start(staged("echo $$; exit 9", name=name), "CLONE_NEWPID")
    assert helped.communicate()[0] == (b"1\n" if name == "exec" else b"2\n")
    assert helped.exited().status == 9


def test_its_filter(helped: Init) -> None:
    allow = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)  # BPF_RET|BPF_K, SECCOMP_RET_ALLOW
    helped.start(staged("grep ^Seccomp: /proc/self/status", filter_=allow), filter_=allow)
    assert helped.communicate()[0] == b"Seccomp:\t2\n"
    assert helped.exited().status == 0


@pytest.mark.parametrize("name", ["exec", "init"])
def test_its_report(helped: Init, name: str) -> None:
    failed, said = helped.failed(staged("", name=name, path="/no/such"), "CLONE_NEWPID")
    assert (failed.kind, failed.error, said) == (lib.MC_GUEST_EXEC_FAILED, errno.ENOENT, "")
    assert (failed.program.path, failed.step) == (-1, -1)


# ---- a terminal


def test_a_terminal(init: Init) -> None:
    script = "until stty size | grep -v '^0 0'; do :; done; tty; read line; echo got $line; exit 6"
    init.start(terminal(script), tty=True, window=(31, 97))
    assert received(init.stdout, rb"pts/\d+\r\n").startswith(b"31 97\r\n/dev/pts/")
    init.stdin.sendall(b"typed\n")
    assert init.communicate()[0] == b"typed\r\ngot typed\r\n"  # echoed
    assert init.exited().status == 6


def test_its_window_changes(init: Init) -> None:
    init.start(terminal("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"), tty=True)
    received(init.stdout, b"ready\r\n")
    init.resize(50, 150)
    assert init.communicate()[0] == b"50 150\r\n"
    assert init.exited().status == 0


def test_keys_are_signals(init: Init) -> None:
    init.start(terminal("trap 'echo int; exit 5' INT; echo ready; while :; do sleep 0.01; done"), tty=True)
    received(init.stdout, b"ready\r\n")
    init.stdin.sendall(b"\x03")
    received(init.stdout, b"int\r\n")
    assert init.exited().status == 5


def test_much_output_of_a_terminal(init: Init) -> None:
    init.start(terminal("stty -opost; head -c 1000000 /dev/zero; sleep 1000 & exit"), tty=True)
    assert init.communicate()[0] == bytes(1000000)
    assert init.exited().status == 0


def test_a_terminal_that_nobody_reads_hangs_up(init: Init) -> None:
    init.start(terminal("trap 'exit 8' HUP; echo ready; while :; do sleep 0.01; done"), tty=True)
    received(init.stdout, b"ready\r\n")
    init.stdout.close()
    assert init.exited().status == 8


def test_a_terminal_that_was_not_sent(init: Init) -> None:
    plan = shell("sleep 1000")
    plan = Plan(plan.steps[3:], ["parent-socket"])
    failed, said = init.failed(plan, tty=True)
    assert (failed.kind, failed.error, said) == (lib.MC_GUEST_INIT_FAILED, errno.EPROTO, "recvmsg(terminal)")

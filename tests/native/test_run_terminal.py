"""``minicontainer run`` typed by a person at a terminal: an interactive shell with job control, and the terminal as it
was when it is over, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from box import CLI, Box, processes, python, python_options, until
from ptys import Session, session

pytestmark = pytest.mark.needs("root")

PROMPT = r"# (\x1b\[6n)?$"  # busybox asks for the position of the cursor
At = Callable[..., Session]


@pytest.fixture
def at(rootfs: Path) -> Iterator[At]:
    """``at(OPTION..., command=[...])``: a container at a terminal."""
    with ExitStack() as stack:

        def open_session(*options: str, command: tuple[str, ...] = (), rows: int = 24, columns: int = 80) -> Session:
            return stack.enter_context(session("run", *options, rootfs, *command, rows=rows, columns=columns))

        yield open_session


@pytest.fixture
def shell(at: At) -> Session:
    """An interactive shell at its first prompt."""
    opened = at(command=("/bin/sh",))
    opened.expect(PROMPT)
    return opened


def child_of(process: subprocess.Popen[bytes]) -> int:
    """Process 1 of the container of a session."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(until(lambda: path.read_text(encoding="ascii").split())[0])


# ---- a working shell


def test_a_shell(shell: Session) -> None:
    shell.type("echo $((6 * 7)) is; tty; exit 5\r")
    shell.expect(r"42 is\r\n/dev/pts/0\r\n")
    assert shell.ends() == 5


def test_no_command_means_a_shell(at: At) -> None:
    opened = at()
    opened.expect(PROMPT)
    opened.type("exit\r")
    assert opened.ends() == 0


def test_job_control(shell: Session) -> None:
    shell.type("sleep 1000 &\r")
    shell.expect(PROMPT)
    shell.type("jobs\r")
    shell.expect(r"\[1\]\+? +Running +sleep 1000")
    shell.expect(PROMPT)
    shell.type("fg\r")
    shell.expect(r"sleep 1000\r\n")
    shell.await_job("sleep")
    shell.type("\x1a")  # Ctrl-Z
    shell.expect(r"\[1\]\+ +Stopped +sleep 1000")
    shell.expect(PROMPT)
    shell.type("bg; kill %1; wait %1; echo code $?\r")
    shell.expect(r"code 143")


def test_an_interrupt_goes_to_the_foreground_job(shell: Session) -> None:
    """Ctrl-C is a byte for us: the container's terminal makes the signal, and only for its job."""
    shell.type("trap 'echo trapped' INT\r")
    shell.expect(PROMPT)
    for _ in range(3):
        shell.type("sleep 1000\r")
        shell.expect("sleep 1000\r\n")
        shell.await_job("sleep")
        shell.type("\x03")
        shell.expect(r"\^C")
        shell.expect(PROMPT)
    shell.type("echo still here\r")
    shell.expect("here\r\nstill here")
    shell.type("cat\r")
    shell.expect("cat\r\n")
    shell.await_job("cat")
    shell.type("\x04")
    shell.expect(PROMPT)
    shell.type("\x04")  # end of file: the end of the shell
    assert shell.ends() in (0, 130)


def test_job_control_with_init(at: At) -> None:
    opened = at("--init", command=("/bin/sh",))
    opened.expect(PROMPT)
    opened.type("sleep 1000\r")
    opened.expect("sleep 1000\r\n")
    opened.await_job("sleep")
    opened.type("\x1a")
    opened.expect("Stopped")
    opened.type("fg\r")
    opened.expect("sleep 1000\r\n")
    opened.await_job("sleep")
    opened.type("\x03")
    opened.expect(PROMPT)
    opened.type("exit 9\r")
    assert opened.ends() == 9


# ---- the second Ctrl-C within a second, where the first goes unheard

UNHEARD = {
    "no handler": ((), "echo ready; exec sleep 1000"),
    "ignored": ((), "trap '' INT; echo ready; sleep 1000; sleep 1000"),
    "ignored, with init": (("--init",), "trap '' INT; echo ready; sleep 1000; sleep 1000"),
}


@pytest.mark.parametrize("case", UNHEARD)
def test_the_second_interrupt_kills(at: At, case: str) -> None:
    """Process 1 ignores what it has no handler for (pid_namespaces(7)); so does who says so."""
    options, script = UNHEARD[case]
    opened = at(*options, command=("sh", "-c", script))
    opened.expect("ready")
    if "exec" in script:  # until then the shell hears it
        opened.await_job("sleep")
    opened.type("\x03")
    opened.expect(r"\^C")
    opened.type("\x03")
    assert opened.ends() == 137
    restored(opened, _cooked())


def test_two_interrupts_at_once_kill(at: At) -> None:
    opened = at(command=("sh", "-c", "echo ready; exec sleep 1000"))
    opened.expect("ready")
    opened.await_job("sleep")
    opened.type("\x03\x03")
    assert opened.ends() == 137


def test_an_interrupt_now_and_then_kills_nothing(at: At) -> None:
    opened = at(command=("sh", "-c", "echo ready; exec cat"))
    opened.expect("ready")
    opened.await_job("cat")
    for _ in range(2):
        opened.type("\x03")
        opened.expect(r"\^C")  # it has been counted
        time.sleep(1.1)
    opened.type("still\r")
    opened.expect("still\r\nstill\r\n")
    opened.type("\x04")
    assert opened.ends() == 0


def test_an_interactive_shell_is_never_lost(shell: Session) -> None:
    """A line feed behind the interrupts gives a prompt that none of them flushes (termios(3), NOFLSH)."""
    for _ in range(3):
        shell.type("\x03\x03\x03\r")
        shell.expect(PROMPT)
    shell.type("echo u''p; cat\r")
    shell.expect("up\r\n")
    shell.await_job("cat")
    shell.type("\x03\x03\x03\r")
    shell.expect(PROMPT)
    shell.type("echo still $((40 + 2))\r")
    shell.expect("still 42")
    shell.type("exit 3\r")
    assert shell.ends() == 3


# Each sets ``heard``; it is printed when no further interrupt can come, since one makes the terminal throw away
# the output that nobody has read yet (termios(3), NOFLSH).
HEARD = {
    "caught": "heard = []; signal.signal(2, lambda *_: heard.append(2)); print('ready', flush=True); time.sleep(1)",
    "waited for": "signal.pthread_sigmask(0, [2]); print('ready', flush=True); heard = signal.sigwait([2])",
    "read": "import tty; tty.setraw(0); print('ready', flush=True); heard = sys.stdin.buffer.raw.read(1)",
}


@pytest.mark.parametrize("how", HEARD)
def test_who_hears_interrupts_is_not_killed(at: At, how: str) -> None:
    then = "time.sleep(1); print('heard' if heard else 'not heard', flush=True); sys.exit(7)"
    code = f"import signal, sys, time; {HEARD[how]}; {then}"
    opened = at(*python_options(), command=(python(), "-I", "-c", code))
    opened.expect("ready")
    opened.type("\x03\x03\x03")
    opened.expect("heard")
    assert opened.ends() == 7


def test_an_exec_is_left_in_the_same_way(make: Callable[..., Any]) -> None:
    """What is killed is what was entered with; the container stays."""
    c = make("sleep", "1000")
    script = "trap '' INT; echo ready; sleep 1000; sleep 1000"
    with session("exec", "-it", c.id[:12], "sh", "-c", script) as opened:
        opened.expect("ready")
        opened.type("\x03\x03")
        assert opened.ends() == 137
    assert c.status == "running"


# ---- the terminal belongs to the container


def test_the_terminal_inside(at: At) -> None:
    script = """tty; readlink /proc/self/fd/0; stat -c '%t:%T' /dev/pts/0 /dev/console; ls -1 /dev/pts; echo $TERM
        grep -c ' /dev/console ' /proc/self/mounts; cut -d' ' -f1,4,5,6 /proc/self/stat; echo over >/dev/console"""
    opened = at(command=("sh", "-c", script))
    opened.ends()
    lines = opened.seen.decode().split("\r\n")
    assert lines[:2] == ["/dev/pts/0", "/dev/pts/0"]
    assert lines[2] == lines[3]  # the same device
    assert lines[4:6] == ["0", "ptmx"]
    assert lines[6:8] == ["xterm", "1"]
    assert lines[8].split()[2:] == ["1", "1"]  # process group and session of process 1
    assert lines[9] == "over"


def test_the_terminal_is_the_users(at: At) -> None:
    opened = at("--user", "1000", command=("sh", "-c", "stat -c %u /dev/pts/0; echo open >/dev/pts/0"))
    assert opened.ends() == 0
    assert opened.seen == b"1000\r\nopen\r\n"


def test_no_byte_gets_into_our_terminal(at: At) -> None:
    """TIOCSTI works on a controlling terminal: the container's is its own, also without a pty."""
    opened = at("--no-tty", command=("sh", "-c", "cut -d' ' -f7 /proc/self/stat; stat -Lc %t /proc/self/fd/0"))
    assert opened.ends() == 0
    assert opened.seen.split()[0] == b"0"  # no controlling terminal
    assert opened.seen.split()[1] == b"88"  # a pty: major number 136


def test_when_a_terminal_is_given(rootfs: Path) -> None:
    """By default where stdin and stdout both are one; ``-t`` asks for it, ``--no-tty`` refuses it."""
    script = "test -t 0 && echo in; test -t 1 && echo out; test -c /dev/pts/0 && echo own"
    inner = " ".join([*CLI, "run", "%s", str(rootfs), "sh", "-c", f"'{script}'"])
    for option, redirection, said in (
        ("", "", "in out own"),
        ("-t", "", "in out own"),
        ("-it", "", "in out own"),
        ("--no-tty", "", "in out"),
        ("", "| cat", "in"),
        ("", "</dev/null", "out"),
        ("--dry-run", ">/dev/null", ""),
    ):
        opened = Session(["sh", "-c", f"{inner % option} {redirection}"], 24, 80)
        try:
            opened.ends()
            assert opened.seen.decode().split() == said.split(), (option, redirection)
        finally:
            opened.close()


# ---- size


def test_size(at: At) -> None:
    """There from the first instruction on, and followed."""
    opened = at(
        command=("sh", "-c", "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"),
        rows=33,
        columns=101,
    )
    opened.expect("33 101\r\nready\r\n")
    opened.set_size(44, 133)
    opened.expect("44 133\r\n")
    opened.set_size(10, 20)
    opened.expect("10 20\r\n")


# ---- restored


def restored(opened: Session, before: list[Any]) -> None:
    until(lambda: opened.attributes() == before)


def test_restored_after_the_end(at: At) -> None:
    opened = at(command=("sh", "-c", "stty raw -echo; echo ready; read x"))
    before = _cooked()
    opened.expect("ready")
    assert opened.is_raw()
    opened.type("\n")
    opened.ends()
    restored(opened, before)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1], ids=lambda n: n.name
)
def test_restored_after_a_signal(at: At, number: signal.Signals) -> None:
    opened = at(command=("sh", "-c", "trap 'exit 3' TERM HUP QUIT USR1; echo ready; while :; do sleep 0.05; done"))
    opened.expect("ready")
    assert opened.is_raw()
    opened.process.send_signal(number)
    assert opened.ends() == 3
    restored(opened, _cooked())


def test_restored_after_the_container_was_killed(at: At) -> None:
    opened = at(command=("sh", "-c", "echo ready; sleep 1000"))
    opened.expect("ready")
    os.kill(child_of(opened.process), signal.SIGKILL)
    assert opened.ends() == 137
    restored(opened, _cooked())


def test_restored_after_a_timeout_and_an_error(at: At) -> None:
    opened = at("--timeout", "0.5", command=("sleep", "1000"))
    assert opened.ends() == 124
    assert b"minicontainer: --timeout 0.5" in opened.seen
    restored(opened, _cooked())
    opened = at(command=("/none",))
    assert opened.ends() == 127
    assert opened.seen.count(b"\n") == 1
    restored(opened, _cooked())


def test_stopped_and_continued(at: At) -> None:
    """A shell sets its own modes while we are stopped; afterwards the terminal is ours again."""
    opened = at(command=("/bin/sh",))
    opened.expect(PROMPT)
    opened.process.send_signal(signal.SIGSTOP)
    termios.tcsetattr(opened.slave, termios.TCSANOW, _cooked())
    opened.set_size(50, 60)
    opened.process.send_signal(signal.SIGCONT)
    until(opened.is_raw)
    opened.type("stty size\r")
    opened.expect("50 60")


def _cooked() -> list[Any]:
    """The attributes of a new terminal."""
    master, slave = os.openpty()
    try:
        return termios.tcgetattr(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_the_terminal_goes_away(at: At) -> None:
    """A closed window: SIGHUP, no input, and the container does not outlive it."""
    seconds = f"79{os.getpid()}"
    opened = at("--stop-timeout", "1", command=("sh", "-c", f"echo ready; sleep {seconds}; sleep {seconds}"))
    opened.expect("ready")
    os.close(opened.master)
    os.close(opened.slave)
    assert opened.process.wait(60) in (129, 137)
    until(lambda: not processes(f"sleep\0{seconds}"))


# ---- much data


def test_a_large_paste(own_box: Box) -> None:
    """Faster than it is read, and more than any buffer holds: nothing is lost or changed."""
    lines = "".join(f"{n:06} {'x' * 60}\n" for n in range(6000))
    with session(
        "run", own_box.rootfs, "sh", "-c", "stty raw -echo; echo ready; sleep 0.3; head -c 408000 >/pasted"
    ) as opened:
        opened.expect("ready")
        opened.type(lines)
        assert opened.ends() == 0
    assert (own_box.rootfs / "pasted").read_text(encoding="ascii") == lines


def test_a_flood(at: At) -> None:
    """More than all buffers hold, and read slowly at first."""
    opened = at(command=("sh", "-c", "stty -opost; seq 1000000 1300000; echo END"))
    time.sleep(0.5)
    assert opened.ends(60) == 0
    assert opened.seen == b"".join(b"%d\n" % n for n in range(1000000, 1300001)) + b"END\n"


def test_a_terminal_that_stands_still(at: At) -> None:
    """Nobody reads what a flood writes: a timeout ends it all the same."""
    opened = at("--timeout", "1", command=("yes",))
    children = f"/proc/{opened.process.pid}/task/{opened.process.pid}/children"
    until(lambda: Path(children).read_text(encoding="ascii"))
    until(lambda: not Path(children).read_text(encoding="ascii").split(), 20)
    assert opened.ends() == 124
    assert opened.seen.startswith(b"y\r\ny\r\n")


def test_what_is_written_to_the_terminal_later(at: At) -> None:
    """A program may close its streams and open its terminal again."""
    script = "exec 3</dev/tty <&- >&- 2>&-; exec 3<&-; sleep 0.3; echo later >/dev/tty; sleep 0.2; echo last >/dev/tty"
    opened = at(command=("sh", "-c", script))
    assert opened.ends() == 0
    assert opened.seen == b"later\r\nlast\r\n"

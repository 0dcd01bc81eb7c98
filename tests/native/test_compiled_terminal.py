"""A compiled container at a terminal: as ``minicontainer run``."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from box import until
from compiling import Compiler, run
from ptys import Session, session

pytestmark = pytest.mark.needs("root")

PROMPT = r"# (\x1b\[6n)?$"
At = Callable[..., Session]


@pytest.fixture
def at() -> Iterator[At]:
    """``at(FILE, WORD...)``: a file at a terminal."""
    with ExitStack() as stack:

        def open_session(file: Path, *words: str, rows: int = 24, columns: int = 80) -> Session:
            return stack.enter_context(session(*words, program=[file], rows=rows, columns=columns))

        yield open_session


@pytest.fixture
def shell(compiler: Compiler, at: At) -> Session:
    opened = at(compiler.write("/bin/sh"))
    opened.expect(PROMPT)
    return opened


def test_a_shell(shell: Session) -> None:
    assert shell.is_raw()
    shell.type("echo $((6 * 7)) is $TERM; tty; exit 5\r")
    shell.expect(r"42 is xterm\r\n/dev/pts/0\r\n")
    assert shell.ends() == 5
    assert not shell.is_raw()


def test_job_control(shell: Session) -> None:
    shell.type("sleep 1000\r")
    shell.expect(r"sleep 1000\r\n")
    shell.await_job("sleep")
    shell.type("\x1a")
    shell.expect(r"\[1\]\+ +Stopped +sleep 1000")
    shell.expect(PROMPT)
    shell.type("fg\r")
    shell.expect(r"sleep 1000\r\n")
    shell.await_job("sleep")
    shell.type("\x03")
    shell.expect(PROMPT)
    shell.type("exit 9\r")
    assert shell.ends() == 9


def test_the_size_from_the_start_and_later(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "trap 'stty size; exit 4' WINCH; stty size; while :; do sleep 0.05; done"),
                rows=33, columns=99)  # fmt: skip
    opened.expect("33 99\r\n")
    opened.set_size(44, 111)
    opened.expect("44 111\r\n")
    assert opened.ends() == 4


def test_two_interrupts_end_who_ignores_them(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "echo ready; exec sleep 1000"))
    opened.expect("ready")
    opened.await_job("sleep")
    opened.type("\x03")
    opened.type("\x03")
    assert opened.ends() == 137


def test_two_interrupts_behind_init_go_to_the_program(compiler: Compiler, at: At) -> None:
    opened = at(
        compiler.write(
            "sh", "-c", "trap 'echo caught' INT; echo ready; while :; do sleep 0.05; done", options=["--init"]
        )
    )
    opened.expect("ready")
    for _ in range(3):
        opened.type("\x03")
        opened.expect("caught")
    opened.process.send_signal(signal.SIGINT)
    opened.expect("caught")


def test_a_signal_restores_the_terminal(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"))
    before = opened.attributes()
    opened.expect("ready")
    until(opened.is_raw)
    opened.process.terminate()
    assert opened.ends() == 6
    assert opened.attributes()[:4] == before[:4]


def test_a_terminal_that_is_closed(compiler: Compiler) -> None:
    with session(
        program=[compiler.write("sh", "-c", "trap 'exit 8' HUP; echo ready; while :; do sleep 0.05; done")]
    ) as opened:
        opened.expect("ready")
        opened._close()
        assert opened.process.wait(60) == 8


def test_much_output_arrives_whole(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "seq 1 30000; exit 2"))
    assert opened.ends() == 2
    assert opened.seen.split() == [str(n).encode() for n in range(1, 30001)]


def test_much_input_arrives_whole(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "stty raw -echo; echo ready; head -c 300000 | md5sum"))
    opened.expect("ready")
    opened.type(b"x" * 300_000)
    opened.expect("7b0f7e5a52e2a1cd3e0bdce8f8a3d9a2|[0-9a-f]{32}")
    assert opened.ends() == 0


def test_a_stopped_terminal_delays_no_time_out(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "echo ready; yes", options=["--timeout", "1"]))
    opened.expect("ready")
    termios.tcflow(opened.slave, termios.TCOOFF)
    try:
        until(lambda: _terminated(opened))  # the time-out has ended it, and signals end the rest of the output
        assert opened.process.returncode in (124, -signal.SIGTERM)  # it may wait with its message
    finally:
        termios.tcflow(opened.slave, termios.TCOON)


def _terminated(opened: Session) -> bool:
    opened.process.send_signal(signal.SIGTERM)
    return opened.process.poll() is not None


def test_stopped_and_continued(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("sh", "-c", "echo ready; read line; echo got $line"))
    opened.expect("ready")
    until(opened.is_raw)
    os.kill(opened.process.pid, signal.SIGSTOP)
    mode = opened.attributes()
    mode[3] |= termios.ICANON | termios.ECHO
    termios.tcsetattr(opened.slave, termios.TCSANOW, mode)  # as a shell does meanwhile
    os.kill(opened.process.pid, signal.SIGCONT)
    until(opened.is_raw)
    opened.type("words\r")
    opened.expect("got words")
    assert opened.ends() == 0


def test_with_and_without(compiler: Compiler, at: At) -> None:
    plain = compiler.write("sh", "-c", "tty; echo $TERM", options=["--no-tty"])
    opened = at(plain)
    opened.expect(r"not a tty\r\n\r\n")
    assert opened.ends() != 5
    assert run(compiler.write("tty")).stdout == "not a tty\n"


def test_explain_at_a_terminal(compiler: Compiler, at: At) -> None:
    opened = at(compiler.write("true"), "--explain")
    assert opened.ends() == 0
    assert b"ioctl(<tty>, TIOCSWINSZ, {rows, columns}) = 0" in opened.seen

"""Signals to a compiled container, its time-out and its ends: as ``minicontainer run``."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from box import HEEDING, Box, line_of, processes, refusal, started, until
from compiling import Compiler, run
from signalling import (
    LOOP,
    TRAPS,
    is_killed_after_the_stop_timeout,
    is_killed_by_the_second_interrupt,
    is_told_of_each,
    leaves_another,
    refuses,
)

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["plain", "init"])
def test_forwarded(compiler: Compiler, init: tuple[str, ...]) -> None:
    file = compiler.write("sh", "-c", f"{TRAPS}; {LOOP}", options=init)
    with started(program=[file]) as process:
        is_told_of_each(process)


def test_the_stop_signal(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", f"trap 'exit 45' QUIT; {LOOP}", options=["--stop-signal", "QUIT"])
    with started(program=[file]) as process:
        assert line_of(process) == "ready"
        process.terminate()
        assert process.wait(60) == 45


def test_the_stop_timeout(compiler: Compiler) -> None:
    seconds = f"81{os.getpid()}"
    script = f"{leaves_another(seconds)}; {refuses('TERM')}"
    with started(program=[compiler.write("sh", "-c", script, options=["--stop-timeout", "0.4"])]) as process:
        is_killed_after_the_stop_timeout(process)
    until(lambda: not processes(f"sleep\0{seconds}"))


def test_a_second_interrupt_kills(compiler: Compiler) -> None:
    with started(program=[compiler.write("sh", "-c", refuses("INT"))]) as process:
        is_killed_by_the_second_interrupt(process)


def test_what_the_caller_ignores_stays_ignored(compiler: Compiler) -> None:
    """nohup(1)."""
    file = compiler.write("sh", "-c", f"trap 'echo got HUP' HUP; trap 'exit 3' TERM; {LOOP}")
    words = [*HEEDING, "nohup", str(file)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        process.terminate()
        assert process.wait(60) == 3
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_the_program_gets_no_mask(compiler: Compiler) -> None:
    file = compiler.write("grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status")
    blocked = {signal.SIGUSR1, signal.SIGTERM}
    done = run(file, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked))
    assert all(int(line.split()[1], 16) == 0 for line in done.stdout.splitlines()), done.stdout


def test_the_time_out_kills_all(compiler: Compiler) -> None:
    seconds = f"82{os.getpid()}"
    file = compiler.write("sh", "-c", f"sleep {seconds} & sleep {seconds}", options=["--timeout", "0.4", "--init"])
    done = run(file)
    assert (done.returncode, done.stderr) == (124, "minicontainer: --timeout 0.4: the container was killed\n")
    assert not processes(f"sleep\0{seconds}")


def test_nobody_outlives_process_1(compiler: Compiler) -> None:
    seconds = f"83{os.getpid()}"
    script = f"(setsid sleep {seconds} >/dev/null 2>&1 &); (trap '' TERM HUP; sleep {seconds}) & exit 6"
    for options in ((), ("--pid", "host")):
        assert run(compiler.write("sh", "-c", script, options=options)).returncode == 6
        assert not processes(f"sleep\0{seconds}"), options


def test_it_dies_with_its_file(compiler: Compiler) -> None:
    seconds = f"84{os.getpid()}"
    with started(program=[compiler.write("sh", "-c", f"echo ready; exec sleep {seconds}")]) as process:
        assert line_of(process) == "ready"
        process.kill()
        process.wait()
        until(lambda: not processes(f"sleep\0{seconds}"))
    clean_up()


def clean_up() -> None:
    """Removes the cgroup that a killed file has left, as the next ``doctor --clean`` does."""
    from minicontainer.container.cgroup import orphans

    until(lambda: orphans.clean() or not orphans.find())


def test_a_closed_output(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", "while echo line; do :; done; exit 9")
    with subprocess.Popen([*HEEDING, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) in (9, 141)


def test_a_closed_stderr_of_its_own_messages(compiler: Compiler) -> None:
    """The container is cleaned up although nobody reads what is said."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [str(compiler.write("sleep", "1000", options=["--timeout", "0.2"]))], stderr=write, stdin=-3, check=False
    )
    os.close(write)
    assert done.returncode == 124


@pytest.mark.parametrize("root", ["none", ""], ids=["before the start", "at the start"])
def test_a_closed_stderr_of_an_error(compiler: Compiler, tmp_path: Path, root: str) -> None:
    """The exit code is that of the error, not of SIGPIPE."""
    file = compiler.write("nosuch")
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, **({"MINICONTAINER_ROOT": str(tmp_path / root)} if root else {})}
    done = subprocess.run([file], stderr=write, env=environment, check=False)
    os.close(write)
    assert done.returncode == (125 if root else 127)


@pytest.mark.parametrize("options", [(), ("--init",), ("--userns", "host")], ids=" ".join)
def test_a_limit_of_files(box: Box, compiler: Compiler, options: tuple[str, ...]) -> None:
    """What is written at a start may be beyond it (RLIMIT_FSIZE): an error, as of run, that leaves no cgroup."""
    file = compiler.write("sh", "-c", "exit 3", options=options)
    for size in (0, 1 << 16, 1 << 30):

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        done = run(file, preexec_fn=limit)
        assert done.returncode == box.run("sh", "-c", "exit 3", options=options, preexec_fn=limit).returncode
        assert done.returncode == 3 or "file too large" in refusal(done)


def test_a_limit_of_the_file_of_messages(compiler: Compiler, tmp_path: Path) -> None:
    file, log = compiler.write("sleep", "1000", options=["--timeout", "0.2"]), tmp_path / "log"
    log.write_bytes(bytes(1 << 20))
    with log.open("ab") as full:
        words = ["prlimit", f"--fsize={1 << 20}", str(file)]
        assert subprocess.run(words, stderr=full, check=False).returncode == 124


def test_a_caller_that_ignores_its_children(compiler: Compiler) -> None:
    """The kernel would discard the status of process 1, as for a child of the caller."""
    file = compiler.write("sh", "-c", "exit 7")
    assert subprocess.run(["env", "--ignore-signal=CHLD", file], check=False).returncode == 7


def test_an_end_that_nobody_may_wait_for(compiler: Compiler) -> None:
    words = ["strace", "-qqo/dev/null", "-einject=waitid:error=EPERM", str(compiler.write("true"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert refusal(done) == "minicontainer: waitid: operation not permitted"


def test_random_kills() -> None:
    """Of 40 rounds here; `python tests/killing_compiled.py 1000` is the same."""
    command = [sys.executable, str(Path(__file__).parents[1] / "killing_compiled.py"), "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 left after 40 rounds" in done.stdout

"""Signals to ``minicontainer run``: passed on to process 1, and the end that they make."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from box import CLI, HEEDING, line_of, processes, started, until
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
def test_forwarded(rootfs: Path, init: tuple[str, ...]) -> None:
    with started("run", *init, rootfs, "sh", "-c", f"{TRAPS}; {LOOP}") as process:
        is_told_of_each(process)


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["plain", "init"])
def test_the_exit_code_of_who_heeds_it(rootfs: Path, init: tuple[str, ...]) -> None:
    with started("run", *init, rootfs, "sh", "-c", f"trap 'exit 44' TERM; {LOOP}") as process:
        assert line_of(process) == "ready"
        process.terminate()
        assert process.wait(60) == 44


def test_init_lets_signals_do_what_they_do(rootfs: Path) -> None:
    """Process 1 ignores what it has no handler for; behind --init the program is not process 1."""
    with started("run", "--init", rootfs, "sh", "-c", LOOP) as process:
        assert line_of(process) == "ready"
        process.terminate()
        assert process.wait(60) == 143


def test_stop_signal(rootfs: Path) -> None:
    """SIGTERM becomes it; the container's own words then."""
    for name in ("QUIT", "SIGUSR1", "12", "RTMIN+3"):
        trap = {"SIGUSR1": "USR1", "12": "USR2", "RTMIN+3": "37"}.get(name, name)
        with started("run", "--stop-signal", name, rootfs, "sh", "-c", f"trap 'exit 45' {trap}; {LOOP}") as process:
            assert line_of(process) == "ready"
            process.terminate()
            assert process.wait(60) == 45, name


def test_stop_timeout(rootfs: Path) -> None:
    """Who does not heed it is killed, with all of the container."""
    seconds = f"80{os.getpid()}"
    script = f"{leaves_another(seconds)}; {refuses('TERM')}"
    with started("run", "--stop-timeout", "0.4", rootfs, "sh", "-c", script) as process:
        is_killed_after_the_stop_timeout(process)
    until(lambda: not processes(f"sleep\0{seconds}"))


def test_a_second_interrupt_kills(rootfs: Path) -> None:
    with started("run", rootfs, "sh", "-c", refuses("INT")) as process:
        is_killed_by_the_second_interrupt(process)


def test_a_storm_of_signals(rootfs: Path) -> None:
    """None is lost that the kernel keeps, and none gets us out of step."""
    with started(
        "run", rootfs, "sh", "-c", f"n=0; trap 'n=$((n+1))' USR1; trap 'echo $n; exit 6' TERM; {LOOP}"
    ) as process:
        assert line_of(process) == "ready"
        for _ in range(500):
            process.send_signal(signal.SIGUSR1)
        process.terminate()
        assert int(line_of(process)) > 0
        assert process.wait(60) == 6


def test_signals_while_it_starts(rootfs: Path) -> None:
    """At any moment: it ends by the signal, or runs and is told of it. Nothing is left (the leak check sees that)."""
    for delay in (0.0, 0.02, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.15):
        script = "trap 'exit 7' TERM; while :; do sleep 0.02; done"
        command = [*HEEDING, *CLI, "run", "--stop-timeout", "0.2", str(rootfs), "sh", "-c", script]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            time.sleep(delay)
            process.terminate()
            assert process.wait(60) in (-signal.SIGTERM, 7, 137, 143), delay


@pytest.mark.parametrize(("name", "number"), [("HUP", signal.SIGHUP), ("INT", signal.SIGINT)])
def test_what_the_caller_ignores_stays_ignored(rootfs: Path, name: str, number: signal.Signals) -> None:
    """nohup(1), and the background jobs of a shell without job control."""
    command = [
        "env",
        f"--ignore-signal={name}",
        *CLI,
        "run",
        str(rootfs),
        "sh",
        "-c",
        f"trap 'echo got {name}' {name}; {LOOP}",
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert line_of(process) == "ready"
            process.send_signal(number)
            time.sleep(0.2)
            process.send_signal(signal.SIGUSR1)
            process.send_signal(signal.SIGUSR2)
            assert process.poll() is None
            (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
            os.kill(int(pid), signal.SIGKILL)
            assert process.wait(60) == 137
            assert process.stdout is not None
            assert process.stdout.read() == ""
        finally:
            process.kill()


def test_a_caller_that_ignores_its_children(rootfs: Path) -> None:
    """The kernel would discard the status of process 1, as for a child of the caller."""
    words = ["env", "--ignore-signal=CHLD", *CLI, "run", str(rootfs), "sh", "-c", "exit 7"]
    assert subprocess.run(words, check=False).returncode == 7


def test_signals_of_a_container_with_the_hosts_processes(rootfs: Path) -> None:
    with started("run", "--pid", "host", rootfs, "sh", "-c", LOOP) as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 128 + signal.SIGUSR1

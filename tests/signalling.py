"""Programs that are told of signals, what must be true of whoever forwards signals to them, and code that is
interrupted by one."""

from __future__ import annotations

import signal
import subprocess
import time

from box import line_of

NAMES = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "CONT", "TSTP")  # that run and a file forward
TRAPS = "; ".join(f"trap 'echo got {name}' {name}" for name in NAMES)
LOOP = "echo ready; while :; do sleep 0.05; done"


def is_told_of_each(process: subprocess.Popen[str]) -> None:
    """Of each of NAMES; the program inside is ``TRAPS; LOOP``."""
    assert line_of(process) == "ready"
    for name in NAMES:
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert line_of(process) == f"got {name}"


def refuses(name: str) -> str:
    """A script that says no to a signal, and goes on."""
    return f"trap 'echo no' {name}; {LOOP}"


def is_killed_by_the_second_interrupt(process: subprocess.Popen[str]) -> None:
    """The program inside is ``refuses("INT")``."""
    assert line_of(process) == "ready"
    process.send_signal(signal.SIGINT)
    assert line_of(process) == "no"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 137


def is_killed_after_the_stop_timeout(process: subprocess.Popen[str]) -> None:
    """The program inside is ``refuses("TERM")``."""
    assert line_of(process) == "ready"
    process.terminate()
    assert line_of(process) == "no"
    time.sleep(0.1)
    process.terminate()  # a second one does not make it longer
    assert process.wait(60) == 137


def leaves_another(seconds: str) -> str:
    """A part of a script: a process in another session, which ignores SIGTERM."""
    return f"(trap '' TERM; setsid sleep {seconds} &)"


def interrupting(call: str, most: float, times: int = 60) -> str:
    """Python code: often ``call``, each interrupted by an exception of a signal handler within ``most`` seconds."""
    return f"""
import random, signal
class Interrupt(Exception):
    pass
def interrupt(*args):
    raise Interrupt
signal.signal(signal.SIGALRM, interrupt)
rng, interrupted = random.Random(1), 0
for _ in range({times}):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00001, {most}))
        {call}
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert interrupted > 5, interrupted
"""


NO_CHILD = """
try:
    print("a child is left:", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no child is left")
"""

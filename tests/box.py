"""Runs ``minicontainer`` commands as a user types them, and checks their output and errors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from minicontainer import runtime

Done = subprocess.CompletedProcess[str]
Word = str | Path

CLI = (sys.executable, "-m", "minicontainer")
HEEDING = ("env", "--default-signal")  # command prefix: ignored signals are not inherited from pytest


class Box:
    """Runs containers of one root file system; ``run`` is a fixture that runs a command line."""

    def __init__(self, run: Callable[..., Done], rootfs: Path) -> None:
        self._run, self.rootfs = run, rootfs

    def run(self, *words: Word, options: Sequence[object] = (), rootfs: Word | None = None, **more: Any) -> Done:
        """The command ``words`` with ``options`` before the root file system."""
        return self._run("run", *options, self.rootfs if rootfs is None else rootfs, *words, **more)

    def sh(self, script: str, *options: object, **more: Any) -> str:
        """The output of a shell script, which must exit with 0 and print nothing on stderr."""
        done = self.run("sh", "-c", script, options=options, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.strip()

    def refused(self, *words: Word, code: int = 125, says: Sequence[str] = (), **more: Any) -> str:
        """The one-line error with which the command is refused; there is no other output."""
        return refusal(self.run(*words, **more), code, says)


def refusal(done: Done, code: int = 125, says: Sequence[str] = ()) -> str:
    """Check a refused command: exit code, empty stdout, one line on stderr with all of ``says``; returns that line."""
    assert done.returncode == code, done
    assert not done.stdout, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("minicontainer: "), lines
    for word in says:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    return lines[0]


class Operator:
    """Starts containers with ``run -d`` and stores their ids for removal; ``do`` runs any other command."""

    def __init__(self, run: Callable[..., Done], rootfs: Path) -> None:
        self._run, self.rootfs = run, rootfs
        self.ids: list[str] = []

    def run(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """Start a container; its id."""
        done = self._run("run", "-d", *options, self.rootfs, *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert re.fullmatch(r"[0-9a-f]{64}\n", done.stdout)
        self.ids.append(done.stdout.strip())
        return self.ids[-1]

    def do(self, *words: str, code: int = 0, **more: Any) -> Done:
        """Run a command that must exit with ``code``."""
        done = self._run(*words, **more)
        assert done.returncode == code, done
        return done

    def out(self, *words: str, **more: Any) -> str:
        """The output of a command that must succeed without messages on stderr."""
        done = self.do(*words, **more)
        assert not done.stderr, done
        return done.stdout

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """The JSON rows of ps for this operator's containers."""
        lines = self.out("ps", "--format", "json", *words).splitlines()
        return [row for row in map(json.loads, lines) if row["ID"] in self.ids]

    def inspect(self, word: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out("inspect", word))[0]
        return found


@contextlib.contextmanager
def chosen(path: Path) -> Iterator[None]:
    """Use another state directory in this process."""
    before = os.environ[runtime.VARIABLE]
    os.environ[runtime.VARIABLE] = str(path)
    try:
        yield
    finally:
        os.environ[runtime.VARIABLE] = before


def copy_of(rootfs: Path, to: Path) -> Path:
    """A writable copy of a root file system."""
    shutil.copytree(rootfs, to, symlinks=True)
    return to


def python_options() -> list[str]:
    """Options of run that mount this Python and its libraries in the container."""
    places = {os.path.realpath(sys.base_prefix), "/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache"}
    mounted = [place for place in sorted(places) if os.path.exists(place)]
    return [word for place in mounted for word in ("-v", f"{place}:{place}:ro")]


def python() -> str:
    """The path of this Python, without a virtual environment."""
    return os.path.realpath(sys.executable)


@contextlib.contextmanager
def started(*words: Word, program: Sequence[Word] = CLI, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command in the background; at the end two interrupts kill its container, if it still runs."""
    pipe = subprocess.PIPE
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **options}
    with subprocess.Popen([*HEEDING, *map(str, program), *map(str, words)], text=True, **streams) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)  # a second signal too soon would be merged with the first
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that the program inside writes."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until ``true()`` is true; its value."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
    return found


def processes(marker: str) -> list[int]:
    """Pids of other processes whose command line contains ``marker``."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
    return found

"""The contenders: long-lived processes that measure themselves on request, and commands that are timed here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, Protocol

from minicontainer import runtime
from minicontainer.compare.worker import BARE
from minicontainer.container import host
from minicontainer.container.network import ping
from minicontainer.container.registry import ownership
from minicontainer.errors import Error
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.cgroupusage import FILES
from minicontainer.native import LIBEXEC
from minicontainer.spec import Spec

TOTAL = "total"  # the part that all contenders measure


class Contender(Protocol):
    """One way to do the measured operation."""

    @property
    def name(self) -> str:
        """The name in tables."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it measures: TOTAL, and maybe others."""

    def once(self) -> tuple[int, ...]:
        """Run the operation once; nanoseconds of each part. Error if it failed."""

    def close(self) -> None:
        """Release its resources."""


class Server:
    """A process that runs one operation for each line on its stdin, and answers with the nanoseconds of each part."""

    def __init__(self, name: str, command: Sequence[str], parts: tuple[str, ...] = (TOTAL,)) -> None:
        self.name = name
        self.parts = parts
        self._process = subprocess.Popen(  # in a session of its own: Ctrl-C must not end it before its stdin is closed
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        )

    def once(self) -> tuple[int, ...]:
        """As Contender."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            raise Error(f"ended with status {self._process.wait()}")
        return tuple(map(int, answer.split()))

    def close(self) -> None:
        """As Contender."""
        self._process.communicate()


class Command:
    """A command, timed from its start to its end; ``argv(n)`` gives the arguments of the n-th run."""

    parts = (TOTAL,)

    def __init__(self, name: str, argv: Callable[[int], list[str]], cleanup: Callable[[], None] | None = None) -> None:
        self.name = name
        self._argv, self._cleanup, self._count = argv, cleanup, 0
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)

    def once(self) -> tuple[int, ...]:
        """As Contender. An Error has the last line of the command's stderr."""
        self._count += 1
        argv = self._argv(self._count)
        streams = [(os.POSIX_SPAWN_DUP2, fd, i) for i, fd in enumerate((self._null, self._null, self._stderr))]
        start = perf_counter_ns()
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=streams)
        _, status = os.waitpid(pid, 0)
        took = perf_counter_ns() - start
        if status:
            text = os.pread(self._stderr, 2**16, max(0, os.fstat(self._stderr).st_size - 2**16))
            raise Error(f"{last_line(text)} (status {os.waitstatus_to_exitcode(status)})".strip())
        return (took,)

    def output(self, prefix: Sequence[str], **options: Any) -> bytes:
        """Its output when the command ``prefix`` starts it, with options of subprocess.run."""
        self._count += 1
        argv = [*prefix, *self._argv(self._count)]
        done = subprocess.run(argv, capture_output=True, check=False, **options)
        if done.returncode:
            raise Error(f"{last_line(done.stderr)} (status {done.returncode})".strip())
        return bytes(done.stdout)

    def close(self) -> None:
        """As Contender."""
        os.close(self._null)
        os.close(self._stderr)
        if self._cleanup is not None:
            self._cleanup()


def last_line(text: bytes) -> str:
    """The last line of a program's stderr, which is usually the reason."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def floor_command(rootfs: str, program: str, home: str) -> list[str]:
    """The command of csrc/floors/floor.c, with what the library reads of the host; ``home``: the parent cgroup of
    containers."""
    masked, read_only = host.kernel_paths()
    words = [w for path, is_directory in masked for w in ("-m", f"{'d' if is_directory else 'f'}{path}")]
    words += [w for path in read_only for w in ("-r", path)]
    groups = ping.groups(Spec((program,), rootfs=rootfs, **BARE), BARE["userns"], None)
    words += ["-p", groups] if groups else []
    with Cgroup.open(home) as group:
        words += [
            w for _, name, controller in FILES if not controller or controller in group.enabled for w in ("-u", name)
        ]
    head = [f"{LIBEXEC}/floor", rootfs, home, program, f"{LIBEXEC}/init", ownership.directory(), runtime.mark()]
    return head + words


def floor(rootfs: str, program: str, home: str) -> Server:
    """The contender ``floor``."""
    return Server("floor", floor_command(rootfs, program, home))


def library(
    name: str, rootfs: str, program: str, gib: int = 0, *words: str, parts: tuple[str, ...] = (TOTAL,)
) -> Server:
    """A way into the library, in a process with ``gib`` GiB of memory; ``words``: arguments of compare/worker.py."""
    command = [sys.executable, "-m", "minicontainer.compare.worker", rootfs, program, str(gib), *words]
    return Server(name, command, parts)


def own_command(*words: str) -> list[str]:
    """The command ``minicontainer WORDS``, by the installed script if there is one beside this Python."""
    script = os.path.join(os.path.dirname(sys.executable), "minicontainer")
    head = [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "minicontainer"]
    return [*head, *words]


def command_line(name: str, *words: str) -> Command:
    """The contender ``minicontainer WORDS``."""
    command = own_command(*words)
    return Command(name, lambda _: command)

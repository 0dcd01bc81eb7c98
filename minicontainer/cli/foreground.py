"""A container in the foreground: forwards signals, passes the terminal through, returns the exit code."""

from __future__ import annotations

import _signal  # signal imports enum
import os
import sys
from select import POLLIN, poll
from time import monotonic

from minicontainer.cli import print_error, report
from minicontainer.cli.options import write_json
from minicontainer.container.process import Popen
from minicontainer.errors import sentence
from minicontainer.spec import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.cli.interrupts import Interrupts
    from minicontainer.cli.terminal import Terminal
    from minicontainer.plan.timeline import Timeline
    from minicontainer.spec import Spec

FORWARDED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT", "SIGTSTP")
TIMED_OUT = 124
NEVER = float("inf")
LONGEST = 10**9  # milliseconds: the longest time-out of one poll(2)


def foreground(
    spec: Spec,
    *,
    timeout: float | None = None,
    explain: str | None = None,
    meta: str | None = None,
    start: Callable[[Spec], Popen[Any]] = Popen,
) -> int:
    """Run ``spec`` to its end; return the exit code that the command line documents."""
    with Signals(spec) as signals:
        process = start(spec)
        try:
            signals.attach(process)
            timed_out = _watch_at_terminal(process, signals, timeout) if spec.tty else watch(process, signals, timeout)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            process.close()
    _print_reason(process, timeout if timed_out else None)
    _write_reports(process, explain, meta)
    if timed_out:
        return TIMED_OUT
    return code if code >= 0 else 128 - code


def registered(options: dict[str, Any]) -> Callable[[Spec], Popen[Any]]:
    """A start function for a container that ps lists, with the options --label and --cidfile."""

    def start(spec: Spec) -> Popen[Any]:
        from minicontainer.cli.options import cidfile, pairs
        from minicontainer.detached.registered import RegisteredPopen

        with cidfile(options["cidfile"]) as write_id:
            return RegisteredPopen(spec, labels=pairs("label", options["label"]), on_created=write_id)

    return start


class Signals:
    """Forwards signals to process 1: SIGTERM as the stop signal, followed by SIGKILL after ``stop_timeout``; a second
    SIGINT kills. ``fd`` is readable when a signal has arrived (signal.set_wakeup_fd), so none is lost to a race.
    Signals that the caller ignores stay ignored (nohup(1), a shell's background jobs)."""

    def __init__(self, spec: Spec) -> None:
        self.process: Popen[Any] | None = None
        self.kill_at: float | None = None
        self.terminal: Terminal | None = None
        self.urgent = False  # a signal that ends the command has arrived
        self._spec = spec
        self._starts_machine = spec.isolation == "kvm"
        self._stop = signal_number("stop-signal", spec.stop_signal)
        self._pending: list[int] = []
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for name in (*FORWARDED, "SIGWINCH"):
            number = getattr(_signal, name)
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, self._handle)
        if _signal.getsignal(_signal.SIGCHLD) is _signal.SIG_IGN:  # the kernel would discard the status of process 1
            self._before[_signal.SIGCHLD] = _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)

    def attach(self, process: Popen[Any]) -> None:
        """Forward signals to ``process`` from now on, first those that arrived during its start."""
        self.process = process
        pending, self._pending = self._pending, []
        for number in pending:
            self._forward(number)

    def _handle(self, number: int, _frame: object) -> None:
        self.urgent |= number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
        if number == _signal.SIGWINCH:
            if self.terminal is not None:
                self.terminal.resize()
        elif self.process is None and self._starts_machine and self.urgent:
            raise SystemExit(128 + number)  # a kernel takes seconds to boot: nobody waits for that
        elif self.process is None:
            self._pending.append(number)
        else:
            self._forward(number)

    def _forward(self, number: int) -> None:
        assert self.process is not None
        if number == _signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self.process.kill()
                return
        if number == _signal.SIGCONT and self.terminal is not None:
            self.terminal.resume()
        if number == _signal.SIGTERM:
            self._kill_later()
            number = self._stop
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """The terminal is gone: send SIGHUP, and SIGKILL after ``stop_timeout``."""
        if self.kill_at is None and self.process is not None:
            self._kill_later()
            self.process.send_signal(_signal.SIGHUP)

    def _kill_later(self) -> None:
        self.kill_at = self.kill_at or monotonic() + self._spec.stop_timeout

    def drain(self) -> None:
        """Empty the wakeup pipe."""
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass


def _watch_at_terminal(process: Popen[Any], signals: Signals, timeout: float | None) -> bool:
    from minicontainer.cli.interrupts import Interrupts
    from minicontainer.cli.terminal import Terminal

    with Terminal(process.terminal) as terminal:
        signals.terminal = terminal
        try:
            timed_out = watch(process, signals, timeout, Interrupts(process))
            process.wait()  # the container is removed before its last output is shown
            signals.urgent = False
            while not terminal.finished(signals.fd) and not signals.urgent:
                signals.drain()
            return timed_out
        finally:
            signals.terminal = None


def watch(process: Popen[Any], signals: Signals, timeout: float | None, interrupts: Interrupts | None = None) -> bool:
    """Wait for the end while forwarding signals and, with a terminal, bytes. Return whether ``timeout`` was reached."""
    end = None if timeout is None else monotonic() + timeout
    terminal = signals.terminal
    poller = poll()
    poller.register(process.pidfd, POLLIN)
    poller.register(signals.fd, POLLIN)
    timed_out = False
    while True:
        if terminal is not None:
            terminal.register(poller)
        ready = dict(poller.poll(_left(end, signals.kill_at)))
        if signals.fd in ready:
            signals.drain()
        if terminal is not None:
            typed = terminal.move(ready)
            if interrupts is not None and interrupts.is_second(typed):
                process.kill()
            if terminal.hung_up:
                signals.hang_up()
        if process.pidfd in ready:
            return timed_out
        if signals.kill_at is not None and monotonic() >= signals.kill_at:
            signals.kill_at = NEVER
            process.kill()
        if end is not None and monotonic() >= end:
            end, timed_out = None, True
            process.expire()


def _left(*deadlines: float | None) -> int | None:
    """Milliseconds to the nearest deadline."""
    known = [d for d in deadlines if d is not None]
    return int(max(0, min((min(known) - monotonic()) * 1000 + 1, LONGEST))) if known else None


# ---- after the end


def _print_reason(process: Popen[Any], timeout: float | None) -> None:
    """Print why the container ended, if the exit code does not show it."""
    if timeout is not None:
        print_error(sentence("--timeout", f"{timeout:g}", "the container was killed"), 0)
    elif process.reason == "oom":
        limit = process.spec.limits.memory
        reason = "the container ran out of memory and was killed"
        if process.spec.isolation == "kvm":
            limit = "512m" if limit is None else limit  # division.MEMORY
            reason = "the guest ran out of memory, and its kernel killed the program"
        print_error(sentence("--memory", limit, reason), 0)
    elif (error := process.machine_error) is not None:
        report(error)


def show_timeline(timeline: Timeline, explain: str) -> None:
    """Print the timeline on stderr, or write it as JSON to the file ``explain``."""
    if explain:
        write_json(explain, timeline.as_dict())
    else:
        print(timeline.format(), file=sys.stderr)


def _write_reports(process: Popen[Any], explain: str | None, meta: str | None) -> None:
    if explain is not None:
        show_timeline(process.timeline, explain)
    if meta is not None:
        write_json(meta, process.result().meta() | {"id": process.id, "name": process.spec.name})

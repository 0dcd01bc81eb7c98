"""The rig's part of the suite: it boots the rig with the tests that need it, beside the other parts.

Theory of operation. An emulated machine may stop for good. Then it says nothing for longer than a test may take, and
vm.py gives it up; what was not finished runs in another one, and the test in which it stopped comes last there. Each
boot has a report of its own, so that the summary shows what was run again; a test that is unfinished in all of them has
failed. The rig is niced, so that it disturbs the parts beside it little.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import accounting
import pytest

BOOTS, TIME, SILENCE = 3, 4500, 600  # seconds for all boots; seconds without output that give one up
ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
# Without its search for plugins, pytest starts 7 seconds sooner in the rig.
OPTIONS = ("--time", "--memory=3072", "--env=PYTEST_DISABLE_PLUGIN_AUTOLOAD=1")

Command = Callable[[list[Path], Path], list[str]]  # pytest's: for what these reports leave open, with this report


class RigPart:
    """Runs the tests that the reports ``collected`` leave open; what it says is in ``log``."""

    def __init__(self, directory: Path, collected: list[Path], command: Command) -> None:
        self.directory, self.command = directory, command
        self.reports = [directory / "rig.json"]
        self.status = 0
        self.log = directory / "rig.log"
        self.log.touch()
        self._machine: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._thread = Thread(target=self._run, args=(collected,))
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stopped = True
        if self._machine is not None:
            self._machine.terminate()
        self._thread.join()

    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self, before: list[Path]) -> None:
        deadline = time.monotonic() + TIME
        while True:
            report = self.reports[-1]
            self.status = self._boot(self.command(before, report), deadline - time.monotonic())
            before = [report] if report.exists() else before
            over = self._stopped or len(self.reports) == BOOTS or time.monotonic() >= deadline
            if over or self.status in ENDED or not any(accounting.open_in(accounting.load(path)) for path in before):
                return
            self.reports.append(self.directory / f"rig-{len(self.reports) + 1}.json")

    def _boot(self, command: list[str], seconds: float) -> int:
        limits = (f"--timeout={seconds:.0f}", f"--silence={SILENCE}", "--output", str(self.directory))
        machine = [sys.executable, str(Path(__file__).parent / "rig/vm.py"), *OPTIONS, *limits, "--", *command]
        with open(self.log, "ab") as log:
            self._machine = subprocess.Popen(["nice", *machine], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self._stopped:
            self._machine.terminate()
        return self._machine.wait()

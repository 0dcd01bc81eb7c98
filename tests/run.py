#!/usr/bin/env python3
"""The whole suite: unit tests, native tests as root, and in the rig whatever could not run here.

    tests/run.py [--keep DIR] [PART...] [-- PYTEST-ARGUMENT...]        PART: unit, native, rig (default: all)

Theory of operation. A part is a pytest run that leaves a report (accounting.py). First each native part is only
collected, which tells the tests that lack an ability here. The rig runs those, beside the native parts, since it takes
the longest (rigpart.py). A part that fails does not keep the others from running. The status is that of the summary:
0 if every test passed somewhere, and failed nowhere.

Tests of tests/native and tests/rig run as root, by sudo where we are not. Without sudo, the rig runs what needs root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import accounting
import pytest
from rigpart import RigPart

TESTS = Path(__file__).resolve().parent
PARTS = {"unit": ("tests/unit",), "native": ("tests/native", "tests/rig")}
SUDO = ["sudo", "--preserve-env", "env", f"PATH={os.environ.get('PATH', os.defpath)}", "PYTHONDONTWRITEBYTECODE=1"]
EXPECTED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Suite:
    """One run of the suite; ``reports`` is where its reports go, ``extra`` goes to every pytest."""

    def __init__(self, reports: Path, extra: Sequence[str]) -> None:
        self.reports, self.extra = reports, extra

    def run(self, chosen: Sequence[str]) -> int:
        """The chosen parts, and the summary of them."""
        status = {}
        with ExitStack() as stack:
            rig = self.start_rig() if "rig" in chosen else None
            if rig is not None:
                stack.callback(rig.stop)  # if we are stopped before it
            for part in [part for part in PARTS if part in chosen]:
                print(f"---- {part}", flush=True)
                status[part] = subprocess.run(self.pytest(part), check=False).returncode
            if rig is not None:
                print("---- rig", flush=True)
                status["rig"] = follow(rig)
        return self.sum_up(status, rig.reports if rig is not None else [])

    def sum_up(self, status: dict[str, int], of_rig: Sequence[Path]) -> int:
        print("---- summary", flush=True)
        for part, code in status.items():
            if code not in EXPECTED:
                print(f"{part} ended with status {code}")
        failed = accounting.summary([*(self.report(part) for part in status if part != "rig"), *of_rig])
        return int(failed or any(code not in EXPECTED for code in status.values()))

    def report(self, part: str) -> Path:
        return self.reports / f"{part}.json"

    def pytest(self, part: str, *more: str, where: Sequence[str] = (), report: str = "") -> list[str]:
        """The command of a part."""
        options = ["-p", "no:cacheprovider", f"--report={self.report(report or part)}", *more]
        become_root = SUDO if part == "native" and os.geteuid() != 0 and shutil.which("sudo") else []
        return [*become_root, sys.executable, "-m", "pytest", *options, *(where or PARTS[part]), *self.extra]

    def start_rig(self) -> RigPart | None:
        """The rig, begun with the tests that lack an ability here; None where there are no such."""
        collected = self.collect()
        lacking = [name for path in collected for name in accounting.lacking(accounting.load(path))]
        if not lacking:
            return None
        print(f"---- rig: begun with {len(lacking)} tests", flush=True)
        files = list(dict.fromkeys(name.partition("::")[0] for name in lacking))

        def command(before: Sequence[Path], report: Path) -> list[str]:
            selection = [f"--only-from={path}" for path in before]
            return self.pytest("rig", "-p", "pytest_timeout", *selection, where=files, report=report.stem)

        return RigPart(self.reports, collected, command)

    def collect(self) -> list[Path]:
        """Reports of what each native part would run and skip."""
        names = {part: f"{part}.collected" for part in PARTS}
        commands = [self.pytest(part, "--collect-only", "-qq", report=name) for part, name in names.items()]
        for running in [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]:
            running.wait()
        return [self.report(name) for name in names.values() if self.report(name).exists()]


def follow(rig: RigPart) -> int:
    """Shows what the rig has said and says, to its end; its status."""
    with open(rig.log, "rb") as log:
        while rig.running():
            _copy(log)
            time.sleep(0.1)
        _copy(log)
    return rig.status


def _copy(log: BinaryIO) -> None:
    sys.stdout.buffer.write(log.read())
    sys.stdout.buffer.flush()


def main(arguments: Sequence[str]) -> int:
    own, extra = list(arguments), []
    if "--" in own:
        extra = own[own.index("--") + 1 :]
        del own[own.index("--") :]
    parser = argparse.ArgumentParser(prog="run.py", usage="%(prog)s [--keep DIR] [PART...] [-- PYTEST-ARGUMENT...]")
    parser.add_argument("parts", nargs="*", metavar="PART", help="unit, native, rig; all if none is named")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the reports there")
    options = parser.parse_args(own)
    if unknown := set(options.parts) - {*PARTS, "rig"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    os.chdir(TESTS.parent)
    with tempfile.TemporaryDirectory(prefix="minicontainer-tests-") as temporary:
        reports = options.keep.absolute() if options.keep else Path(temporary)
        reports.mkdir(parents=True, exist_ok=True)
        for old in reports.glob("*.json"):
            old.unlink()
        return Suite(reports, extra).run(options.parts or [*PARTS, "rig"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""The whole suite: unit tests, native tests as root, and in the rig whatever could not run here.

    tests/run.py [--keep DIR] [PART...] [-- PYTEST-ARGUMENT...]        PART: unit, native, rig (default: all)

Theory of operation. A part is a pytest run that leaves a report (accounting.py). First each native part is only
collected, which tells the tests that lack an ability here. The rig runs those, beside the native parts: it takes the
longest, and is niced so that it disturbs them little. A part that fails does not keep the others from running. The
status is that of the summary: 0 if every test passed somewhere, and failed nowhere.

Tests of tests/native and tests/rig run as root, by sudo where we are not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import accounting
import pytest

TESTS = Path(__file__).resolve().parent
PARTS = {"unit": ("tests/unit",), "native": ("tests/native", "tests/rig")}
MEMORY, TIMEOUT = 3072, 3600
EXPECTED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Suite:
    """One run of the suite; ``reports`` is where its reports go, ``extra`` goes to every pytest."""

    def __init__(self, reports: Path, extra: Sequence[str]) -> None:
        self.reports, self.extra = reports, extra

    def run(self, chosen: Sequence[str]) -> int:
        """The chosen parts, and the summary of them."""
        status = {}
        rig = self.start_rig() if "rig" in chosen else None
        for part in PARTS:
            if part in chosen:
                print(f"---- {part}", flush=True)
                status[part] = subprocess.run(self.pytest(part), check=False).returncode
        if rig is not None:
            print("---- rig", flush=True)
            status["rig"] = self.follow(rig)
        print("---- summary", flush=True)
        failed = accounting.summary([self.report(part) for part in status])
        broken = [f"{part} ended with status {code}" for part, code in status.items() if code not in EXPECTED]
        print("\n".join(broken), end="\n" * bool(broken))
        return 1 if failed or broken else 0

    def report(self, part: str) -> Path:
        return self.reports / f"{part}.json"

    def pytest(self, part: str, *more: str, where: Sequence[str] = (), report: str = "") -> list[str]:
        """The command of a part."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--report",
            str(self.report(report or part)),
        ]
        command += [*more, *(where or PARTS[part]), *self.extra]
        if part == "native" and os.geteuid() != 0:  # -B: root leaves no files in the tree
            return [
                "sudo",
                "--preserve-env",
                "env",
                f"PATH={os.environ['PATH']}",
                "PYTHONDONTWRITEBYTECODE=1",
                *command,
            ]
        return command

    def start_rig(self) -> subprocess.Popen[bytes] | None:
        """The rig with the tests that lack an ability here; None where there are no such."""
        collected = []
        for part in PARTS:
            name = f"{part}.collected"
            subprocess.run(
                self.pytest(part, "--collect-only", "-qq", report=name), stdout=subprocess.DEVNULL, check=False
            )
            if self.report(name).exists():
                collected.append(self.report(name))
        lacking = [name for path in collected for name in accounting.lacking(accounting.load(path))]
        if not lacking:
            return None
        files = list(dict.fromkeys(name.partition("::")[0] for name in lacking))
        selection = [word for path in collected for word in ("--only-from", str(path))]
        machine = [
            sys.executable,
            str(TESTS / "rig/vm.py"),
            "--time",
            "--memory",
            str(MEMORY),
            "--timeout",
            str(TIMEOUT),
        ]
        command = [*machine, "--output", str(self.reports), "--", *self.pytest("rig", *selection, where=files)]
        print(f"---- rig: begun with {len(lacking)} tests", flush=True)
        with open(self.reports / "rig.log", "wb") as log:
            return subprocess.Popen(["nice", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def follow(self, rig: subprocess.Popen[bytes]) -> int:
        """Shows what the rig has said and says, to its end; its status."""
        with open(self.reports / "rig.log", "rb") as log:
            while rig.poll() is None:
                _copy(log)
                time.sleep(0.1)
            _copy(log)
        return rig.returncode


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
    os.chdir(TESTS.parent)
    with tempfile.TemporaryDirectory(prefix="minicontainer-tests-") as temporary:
        reports = options.keep.absolute() if options.keep else Path(temporary)
        reports.mkdir(parents=True, exist_ok=True)
        for old in reports.glob("*.json"):
            old.unlink()
        return Suite(reports, extra).run(options.parts or [*PARTS, "rig"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

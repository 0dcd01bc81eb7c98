"""Records where each test ran and its outcome: a report per pytest run, and a summary. A plugin and a command.

    pytest --report native.json ...                     writes the outcome of each test
    pytest --only-from native.json ...                  runs what an earlier report shows as skipped or unfinished
    python tests/accounting.py summary REPORT...        the parts, what failed, what ran nowhere

Theory of operation. A report is written after the collection, with every outcome "unfinished", then between tests, and
at the end; so a killed run leaves a report that shows how far it came. With --collect-only the outcomes are "skipped"
(an ability is missing) or "collected". Each part of the suite has a report, whose file has its name.

A test counts as passed if it passed in one part and failed in none; where it was unfinished it does not count. The
summary's status is 1 if any test has not passed, so a skip cannot hide. An expected failure (xfail) has not passed
either.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pytest
from abilities import missing

SEVERITY = ("collected", "unfinished", "passed", "skipped", "failed")
VERDICTS = {"failed": "failed", "passed": "passed", "unfinished": "failed"}  # over all parts; the first that occurs
OFTEN = 1  # seconds between two writings of a report


class Entry(TypedDict):
    """A test's outcome (of SEVERITY), the reason (if skipped or failed), and seconds."""

    outcome: str
    reason: str
    duration: float


Report = dict[str, Entry]


# ---- the plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("accounting")
    group.addoption("--report", type=Path, metavar="FILE", help="write the outcome of each test")
    group.addoption(
        "--only-from",
        type=Path,
        metavar="REPORT",
        action="append",
        default=[],
        help="select the tests that this report shows as skipped for a missing ability, or unfinished (repeatable)",
    )


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("report")
    if path is not None:
        config.pluginmanager.register(Recorder(path.absolute()), "accounting-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    paths = config.getoption("only_from")
    if not paths:
        return
    wanted = {name: number for number, name in enumerate(name for path in paths for name in open_in(load(path)))}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
    items[:] = sorted((item for item in items if item.nodeid in wanted), key=lambda item: wanted[item.nodeid])


class Recorder:
    """Keeps the report of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report: Report = {}
        self.written = 0.0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(report.nodeid, "failed", _last_line(report.longreprtext), 0)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            reason = missing(item) if session.config.option.collectonly else ""
            outcome = "unfinished" if not session.config.option.collectonly else "skipped" if reason else "collected"
            self._add(item.nodeid, outcome, reason, 0)
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reason = ""
        if report.skipped:
            expected = getattr(report, "wasxfail", None)
            reason = f"expected to fail: {expected}" if expected is not None else _skip_reason(report)
        elif report.failed:
            when = "" if report.when == "call" else f"{report.when}: "
            reason = when + _last_line(report.longreprtext)
        if report.when == "call" or not report.passed:
            self._add(report.nodeid, report.outcome, reason, report.duration)
        else:
            self._add(report.nodeid, "unfinished", "", report.duration)
        if report.when == "teardown" and time.monotonic() - self.written >= OFTEN:
            self._write()

    def pytest_sessionfinish(self) -> None:
        self._write()

    def _add(self, name: str, outcome: str, reason: str, seconds: float) -> None:
        """Of several outcomes (set-up, call, teardown), record the most severe."""
        old = self.report.setdefault(name, Entry(outcome=outcome, reason=reason, duration=0))
        old["duration"] = round(old["duration"] + seconds, 4)
        if SEVERITY.index(outcome) > SEVERITY.index(old["outcome"]):
            old["outcome"], old["reason"] = outcome, reason

    def _write(self) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text(json.dumps(self.report, indent=1), encoding="utf-8")
        temporary.replace(self.path)
        self.written = time.monotonic()


def _skip_reason(report: pytest.TestReport) -> str:
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return said.removeprefix("Skipped: ")


def _last_line(text: str) -> str:
    """The most informative line of a traceback: the last with pytest's error mark, else the last."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return marked[0] if marked else lines[-1].strip()


# ---- the sum


def load(path: Path) -> Report:
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    return report


def lacking(report: Report) -> list[str]:
    """The tests that were (or, by --collect-only, would be) skipped for a missing ability."""
    return [name for name, e in report.items() if e["outcome"] == "skipped" and e["reason"].startswith("needs ")]


def unfinished(report: Report) -> list[str]:
    """The tests that were not finished; the one in which the run stopped comes last."""
    names = [name for name, entry in report.items() if entry["outcome"] == "unfinished"]
    return names[1:] + names[:1]


def open_in(report: Report) -> list[str]:
    """The tests that another run is needed for."""
    return lacking(report) + unfinished(report)


def classify(parts: dict[str, Report]) -> dict[str, str]:
    """The outcome of each test over all parts: passed, failed or skipped (ran nowhere)."""
    union: dict[str, str] = {}
    for name in dict.fromkeys(name for report in parts.values() for name in report):
        outcomes = {report[name]["outcome"] for report in parts.values() if name in report}
        union[name] = next((verdict for outcome, verdict in VERDICTS.items() if outcome in outcomes), "skipped")
    return union


def summary(paths: Sequence[Path]) -> int:
    """Print the summary; 1 if a test failed, or passed in no part, or a report is missing."""
    absent = [path for path in paths if not path.exists()]
    parts = {path.stem: load(path) for path in paths if path not in absent}
    union = classify(parts)
    print(f"{'part':<10}{'tests':>7}{'passed':>8}{'failed':>8}{'unfinished':>12}{'skipped':>9}{'seconds':>9}")
    for part, report in parts.items():
        _print_part(part, report)
    for path in absent:
        print(f"{path.stem:<10} wrote no report")
    for kind, title in (("failed", "failed"), ("skipped", "ran nowhere")):
        names = [name for name, outcome in union.items() if outcome == kind]
        if names:
            print(f"\n{title}:")
            print("\n".join(f"  {name}{_reasons(name, parts)}" for name in names))
    count = Counter(union.values())
    print(f"\n{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if absent or count["failed"] or count["skipped"] or not count["passed"] else 0


def _print_part(part: str, report: Report) -> None:
    count = Counter(entry["outcome"] for entry in report.values())
    seconds = sum(entry["duration"] for entry in report.values())
    counts = f"{count['passed']:>8}{count['failed']:>8}{count['unfinished']:>12}{count['skipped']:>9}"
    print(f"{part:<10}{len(report):>7}{counts}{seconds:>9.1f}")


def _reasons(name: str, parts: dict[str, Report]) -> str:
    """The name and the reason of each part that did not pass the test."""
    entries = [(part, report[name]) for part, report in parts.items() if name in report]
    told = [(part, entry["reason"] or entry["outcome"]) for part, entry in entries if entry["outcome"] != "passed"]
    return "".join(f"\n      {part}: {reason}" for part, reason in told)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="accounting.py", description="What became of the tests of several runs.")
    parser.add_argument("command", choices=["summary"])
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    return summary(parser.parse_args(arguments).reports)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

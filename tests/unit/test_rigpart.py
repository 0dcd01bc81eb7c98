"""The rig's part, without a rig: what it runs again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import accounting
import pytest
import rigpart

TESTS = ("a", "b", "c")


class Boots:
    """Plays the rig: boot n finishes the tests of ``finished[n]``, of those that the reports before it leave open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, *finished: str, status: int = 124) -> None:
        self.finished, self.status, self.ran = list(finished), status, list[list[str]]()
        self.collected = directory / "native.collected.json"
        self._write(self.collected, dict.fromkeys(TESTS, "skipped"))
        monkeypatch.setattr(rigpart.RigPart, "_boot", lambda part, command, seconds: self.boot(*map(Path, command)))
        self.part = rigpart.RigPart(directory, [self.collected], lambda before, report: [*map(str, (report, *before))])
        while self.part.running():
            time.sleep(0.01)

    def boot(self, report: Path, *before: Path) -> int:
        names = [name for path in before for name in accounting.open_in(accounting.load(path))]
        self.ran.append(names)
        finished = self.finished.pop(0)
        self._write(report, {name: "passed" if name in finished else "unfinished" for name in names})
        return 0 if set(names) <= set(finished) else self.status

    def _write(self, path: Path, outcomes: dict[str, str]) -> None:
        report = {
            name: {"outcome": outcome, "reason": "needs rig", "duration": 0} for name, outcome in outcomes.items()
        }
        path.write_text(json.dumps(report), encoding="ascii")


def test_one_boot_that_finishes_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boots = Boots(monkeypatch, tmp_path, "abc")
    assert boots.ran == [["a", "b", "c"]]
    assert boots.part.status == 0
    assert [path.name for path in boots.part.reports] == ["rig.json"]


def test_what_a_boot_leaves_is_run_by_the_next_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boots = Boots(monkeypatch, tmp_path, "a", "bc")
    assert boots.ran == [["a", "b", "c"], ["c", "b"]]
    assert boots.part.status == 0
    assert accounting.summary([boots.collected, *boots.part.reports]) == 0


def test_a_test_that_stops_every_boot_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boots = Boots(monkeypatch, tmp_path, "a", "c", "", "never reached")
    assert boots.ran == [["a", "b", "c"], ["c", "b"], ["b"]]
    assert boots.part.status == 124
    assert accounting.summary([boots.collected, *boots.part.reports]) == 1


def test_tests_that_failed_are_not_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boots = Boots(monkeypatch, tmp_path, "a", status=int(pytest.ExitCode.TESTS_FAILED))
    assert len(boots.ran) == 1

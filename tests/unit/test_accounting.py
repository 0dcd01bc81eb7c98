"""The accounting, on a small project of its own: reports, selection by report, and the sum."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import accounting
import pytest

TESTS = Path(accounting.__file__).parent

PROJECT = """
import pytest

def test_plain(): pass

@pytest.mark.needs("rig")
def test_elsewhere(): pass

@pytest.mark.needs("root")
@pytest.mark.needs("disk")
def test_nowhere(): pass
"""
BROKEN = """
import pytest

def test_fails(): assert 1 == 2
@pytest.mark.xfail
def test_expected(): raise ValueError
def test_plain_skip(): pytest.skip("no reason")
@pytest.fixture
def bad(): yield 1 / 0
def test_set_up(bad): pass
"""


class Project:
    """A directory with tests, and pytest with our plugins on it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        plugins = ["-p", "abilities", "-p", "accounting", "-p", "no:cacheprovider"]
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("RIG", "PYTEST", "MINICONT"))
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, *arguments],
            cwd=self.path,
            env={**clean, "PYTHONPATH": str(TESTS), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self, name: str) -> accounting.Report:
        return accounting.load(self.path / name)

    def summary(self, *names: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TESTS / "accounting.py"), "summary", *names]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "test_a.py").write_text(PROJECT, encoding="ascii")
    return Project(tmp_path)


def test_the_report(project: Project) -> None:
    assert project.pytest("--report", "native.json").returncode == 0
    report = project.report("native.json")
    assert report["test_a.py::test_plain"]["outcome"] == "passed"
    assert report["test_a.py::test_plain"]["duration"] > 0
    assert report["test_a.py::test_elsewhere"]["outcome"] == "skipped"
    assert report["test_a.py::test_elsewhere"]["reason"] == "needs rig: this is not the rig"


def test_collecting_tells_the_same_skips(project: Project) -> None:
    project.pytest("--collect-only", "--report", "collected.json")
    project.pytest("--report", "native.json")
    collected = project.report("collected.json")
    assert accounting.lacking(collected) == accounting.lacking(project.report("native.json"))
    assert collected["test_a.py::test_plain"]["outcome"] == "collected"


def test_only_what_lacked_an_ability_is_run_elsewhere(project: Project) -> None:
    project.pytest("--report", "native.json")
    project.pytest("--report", "rig.json", "--only-from", "native.json", RIG="1")
    rig = project.report("rig.json")
    assert sorted(rig) == ["test_a.py::test_elsewhere", "test_a.py::test_nowhere"]
    assert rig["test_a.py::test_elsewhere"]["outcome"] == "passed"


def test_a_test_that_ran_nowhere_fails_the_summary(project: Project) -> None:
    project.pytest("--report", "native.json")
    project.pytest("--report", "rig.json", "--only-from", "native.json", RIG="1")
    done = project.summary("native.json", "rig.json")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "2 passed, 0 failed, 1 skipped"
    nowhere = done.stdout.partition("ran nowhere:\n")[2]
    assert "test_a.py::test_nowhere\n      native: needs " in nowhere
    assert "rig: needs " in nowhere
    assert "test_elsewhere" not in nowhere


def test_all_is_well_when_each_test_ran_somewhere(project: Project) -> None:
    project.pytest("--report", "native.json", "--deselect", "test_a.py::test_nowhere")
    project.pytest("--report", "rig.json", "--only-from", "native.json", RIG="1")
    done = project.summary("native.json", "rig.json")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"
    assert "nowhere" not in done.stdout


def test_failures_and_skips_that_nobody_excuses(project: Project) -> None:
    (project.path / "test_a.py").write_text(BROKEN, encoding="ascii")
    (project.path / "test_b.py").write_text("import nothing_of_this_name\n", encoding="ascii")
    project.pytest("--report", "unit.json", "--continue-on-collection-errors")
    report = project.report("unit.json")
    assert report["test_a.py::test_fails"]["reason"] == "assert 1 == 2"
    assert report["test_a.py::test_set_up"]["reason"].startswith("setup: ZeroDivisionError")
    assert "nothing_of_this_name" in report["test_b.py"]["reason"]
    done = project.summary("unit.json")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "0 passed, 3 failed, 2 skipped"


def test_a_run_that_died_is_a_failure(project: Project) -> None:
    (project.path / "test_a.py").write_text("import os\ndef test_dies(): os._exit(0)\n", encoding="ascii")
    project.pytest("--report", "unit.json")
    done = project.summary("unit.json", "native.json")
    assert done.returncode == 1
    assert "test_a.py::test_dies\n      unit: unfinished" in done.stdout
    assert "native     wrote no report" in done.stdout


def test_what_was_unfinished_is_run_again_with_the_test_that_stopped_it_last(project: Project) -> None:
    kinds = {"ends": "time.sleep(1.1)", "stops": "os._exit(0)", "a": "pass", "b": "time.sleep(1.1)"}
    tests = "".join(f"def test_{name}(): {body}\n" for name, body in kinds.items())
    (project.path / "test_a.py").write_text(f"import os, time\n{tests}", encoding="ascii")
    project.pytest("--report", "rig.json")
    assert [entry["outcome"] for entry in project.report("rig.json").values()] == ["passed", *["unfinished"] * 3]
    project.pytest("--report", "rig-2.json", "--only-from", "rig.json")
    assert list(project.report("rig-2.json")) == [f"test_a.py::test_{name}" for name in ("a", "b", "stops")]
    done = project.summary("rig.json", "rig-2.json")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "3 passed, 1 failed, 0 skipped"
    assert "test_a.py::test_stops\n      rig: unfinished\n      rig-2: unfinished" in done.stdout


def test_a_missing_ability_is_a_failure_when_all_must_work(project: Project) -> None:
    done = project.pytest("--report", "native.json", MINICONTAINER_MUST_WORK="1")
    assert done.returncode == 1
    entry = project.report("native.json")["test_a.py::test_elsewhere"]
    assert entry["outcome"] == "failed"
    assert entry["reason"].endswith("needs rig: this is not the rig")


def test_an_unknown_ability_is_an_error(project: Project) -> None:
    source = "import pytest\n\n@pytest.mark.needs('wings')\ndef test_it(): pass\n"
    (project.path / "test_a.py").write_text(source, encoding="ascii")
    done = project.pytest()
    assert done.returncode != 0
    assert "unknown ability 'wings'" in done.stdout + done.stderr


def test_a_failure_outweighs_a_pass_elsewhere() -> None:
    entry = accounting.Entry(outcome="passed", reason="", duration=0)
    bad = accounting.Entry(outcome="failed", reason="", duration=0)
    assert accounting.classify({"native": {"t": entry}, "rig": {"t": bad}}) == {"t": "failed"}
    assert json.loads(json.dumps(entry)) == entry

"""The linters, the types and the C compiler's warnings are tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
C_FILES = sorted((ROOT / "csrc").rglob("*.c"))
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]


@pytest.mark.parametrize("words", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_linter(words: list[str]) -> None:
    target = ["."] if words[0] == "ruff" else []
    done = subprocess.run(
        [sys.executable, "-m", *words, *target], cwd=ROOT, capture_output=True, text=True, check=False, timeout=190
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_test_asserts_how_long_something_took() -> None:
    """On a machine with other work anything takes any time: tests wait for what is so (tests/box.py, ``until``)."""
    elapsed = re.compile(r"assert .*(monotonic|perf_counter|time\.time)\(\) -|assert .*walltime <")
    for path in (ROOT / "tests").rglob("*.py"):
        found = [line for line in path.read_text(encoding="utf-8").split("\n") if elapsed.search(line)]
        assert not [line for line in found if "re.compile" not in line], path


def test_c_lines_fit_the_width() -> None:
    """At most 120 columns, as ruff checks for Python; a tab is 8."""
    long = []
    for path in sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".c", ".h", ".S", ".ld")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if len(line.expandtabs(8)) > 120:
                long.append(f"{path.relative_to(ROOT)}:{number}")
    assert not long, "\n".join(long)


@pytest.mark.parametrize("source", C_FILES, ids=lambda path: str(path.relative_to(ROOT / "csrc")))
def test_c_compiles_without_a_warning(source: Path, tmp_path: Path) -> None:
    command = [
        "cc",
        "-std=gnu11",
        "-O2",
        *WARNINGS,
        "-I",
        str(ROOT / "csrc"),
        "-c",
        "-o",
        str(tmp_path / "o"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Every example runs, and prints what its ``# expect:`` lines (regular expressions) say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.py"))


@pytest.mark.needs("root", "cgroup2", "overlay")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, rootfs: Path) -> None:
    expected = re.findall(r"^# expect: (.*)$", example.read_text(encoding="utf-8"), re.MULTILINE)
    assert expected, f"{example.name} says nothing of what it prints"
    done = subprocess.run(
        [sys.executable, str(example), str(rootfs)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for pattern in expected:
        assert re.search(pattern, done.stdout), f"{pattern!r} is not in:\n{done.stdout}"


def test_the_course_is_numbered_without_gaps() -> None:
    numbers = [int(path.name[:2]) for path in EXAMPLES]
    assert numbers == list(range(1, len(EXAMPLES) + 1))
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 60 for path in EXAMPLES)

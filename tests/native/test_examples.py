"""Every example runs, and prints what its ``# expect:`` lines (regular expressions) say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.py"))
GIVEN_A_KERNEL = "# given: kernel"


def needs(example: Path) -> pytest.MarkDecorator:
    """The abilities that an example takes."""
    text = example.read_text(encoding="utf-8")
    if GIVEN_A_KERNEL in text:
        return pytest.mark.needs("rig", "kvm-hardware")
    if "minicontainer.kvm" in text:
        return pytest.mark.needs("kvm", "gcc") if "gcc" in text else pytest.mark.needs("kvm")
    return pytest.mark.needs("root", "cgroup2", "overlay")


@pytest.mark.timeout(150)
@pytest.mark.parametrize("example", [pytest.param(path, marks=needs(path), id=path.stem) for path in EXAMPLES])
def test_example(example: Path, rootfs: Path) -> None:
    text = example.read_text(encoding="utf-8")
    expected = re.findall(r"^# expect: (.*)$", text, re.MULTILINE)
    assert expected, f"{example.name} says nothing of what it prints"
    given = os.environ["RIG_GUESTS"] + "/vmlinuz" if GIVEN_A_KERNEL in text else str(rootfs)
    done = subprocess.run(
        [sys.executable, str(example), given], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for pattern in expected:
        assert re.search(pattern, done.stdout), f"{pattern!r} is not in:\n{done.stdout}"


def test_the_course_is_numbered_without_gaps() -> None:
    numbers = [int(path.name[:2]) for path in EXAMPLES]
    assert numbers == list(range(1, len(EXAMPLES) + 1))
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 60 for path in EXAMPLES)

"""Virtio devices, driven by a program in C without a machine: rings, registers, each kind, random drivers.

The cases are the ``TEST(name)`` of ``virtio_test_*.c``, and those that their tables of broken rings expand to.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sanitizers import SANITIZED

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
SOURCES = sorted(HERE.glob("virtio_test*.c"))
TABLES = {"REFUSED": "ring_refused_", "BROKEN": "ring_broken_", "BAD": "console_bad_"}


def cases() -> list[str]:
    """The name of each case of the sources."""
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"^TEST\((\w+)\)", text, re.MULTILINE)
        for macro, name in TABLES.items():
            found += [name + case for case in re.findall(rf"^{macro}\((\w+),", text, re.MULTILINE)]
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases and csrc/virtio, under the sanitizers. The FUSE server is the cases' own."""
    path = tmp_path_factory.mktemp("virtio") / "virtio_test"
    sources = [*SOURCES, *sorted((CSRC / "virtio").glob("*.c"))]
    flags = ["-std=gnu11", "-pthread", f"-I{CSRC}", f"-I{HERE}"]
    subprocess.run([*SANITIZED, *flags, "-o", path, *sources], check=True)
    return path


def test_the_program_has_these_cases(program: Path) -> None:
    """Names that are made by a macro which this file does not know would never run."""
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert sorted(done.stdout.split()) == sorted(cases())
    assert len(set(cases())) == len(cases()) > 100


@pytest.mark.parametrize("case", cases())
def test_case(program: Path, case: str) -> None:
    done = subprocess.run([program, case], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr[-6000:]}"

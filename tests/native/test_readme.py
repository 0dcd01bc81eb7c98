"""The blocks of README.md run, in order, as a reader would run them: on a host whose cgroups are hybrid, too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import CLI

from minicontainer.kvm import guests

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
NOT_HERE = ("make ", "pip ", "minicontainer kvm-boot vmlinuz")  # those, and a Linux to boot, have tests of their own
CLEAN = """
ids=$(minicontainer ps -aq)
[ -z "$ids" ] || minicontainer rm -f $ids >/dev/null
minicontainer network rm bridge 2>/dev/null
"""
RUNNER = """
import ast, asyncio, inspect, sys
space = {}
with open(sys.argv[1], encoding="utf-8") as file:
    blocks = file.read().split("\\f")
for block in blocks:
    code = compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # as python -m asyncio
    result = eval(code, space)
    if inspect.iscoroutine(result):
        asyncio.run(result)
"""

pytestmark = [pytest.mark.needs("root", "cgroup2", "overlay", "kvm"), pytest.mark.timeout(190)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block that can run here, and what it is said to print."""
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = step.splitlines(keepends=True)
        end = next(i for i, line in enumerate(lines) if not line.endswith("\\\n")) + 1
        if not lines[0].startswith(NOT_HERE):
            yield "".join(lines[:end]), "".join(lines[end:])


CONSOLE = [block for block in blocks("console") if any(steps(block))]


@pytest.fixture
def here(tmp_path: Path, rootfs: Path) -> Path:
    """What a reader has: rootfs/, kernel.bin, the command; curl, also on a host without it."""
    shutil.copytree(rootfs, tmp_path / "rootfs", symlinks=True)
    shutil.copy(guests.path("hello"), tmp_path / "kernel.bin")
    scripts = {"minicontainer": 'exec {} "$@"'.format(" ".join(CLI))}
    if shutil.which("curl") is None:
        scripts["curl"] = 'exec busybox wget -qO- "$@"'
    (tmp_path / "bin").mkdir()
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def test_python(here: Path) -> None:
    """In one interpreter, as what the first imports is there for the others."""
    found = blocks("python")
    assert len(found) >= 4
    (here / "blocks").write_text("\f".join(found), encoding="utf-8")
    words = [sys.executable, "-W", "error", "-c", RUNNER, "blocks"]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "box"  # of the program in a plan made by hand


@pytest.mark.needs("bridge")
@pytest.mark.parametrize("block", CONSOLE, ids=range(len(CONSOLE)))
def test_console(here: Path, block: str) -> None:
    """Each in a network namespace of its own, in which its ports are free, and none leaves a name to the next."""
    env = {**os.environ, "PATH": f"{here}/bin:{os.environ['PATH']}"}
    script = [f"ip link set lo up; trap '{CLEAN}' EXIT"]
    expected: list[str] = []
    for command, prints in steps(block):
        script.append(f"echo '# {len(expected)}'; {{ {command}\n}} || exit 1")
        expected.append(prints)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", "\n".join(script)],
        cwd=here,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = re.split(r"^# \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(printed) == len(expected)
    for says, prints in zip(expected, printed, strict=True):
        assert not says or says == prints

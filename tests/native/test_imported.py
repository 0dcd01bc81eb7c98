"""What the commands that start something import: how many modules, and none of those that took most of their time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from box import Operator

CODE = """
import os, sys
before = set(sys.modules)
from minicontainer.__main__ import main
leave = os._exit
def end(code):
    print(*sorted(set(sys.modules) - before), file=sys.stderr, flush=True)
    leave(code)
os._exit = end
main()
"""
SLOW = set(
    "click dataclasses inspect typing re enum json uuid platform ast datetime contextlib ipaddress shutil subprocess"
    " threading locale gettext signal collections functools types socket pathlib tempfile logging calendar string"
    " random collections.abc copy importlib termios encodings.ascii".split()
)


def imported(*words: str | Path) -> set[str]:
    """The modules that a command imports."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # the tests leave no bundle
    command = [sys.executable, "-c", CODE, *map(str, words)]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def check(modules: set[str], ours: int, others: int) -> None:
    """Fail for a module that must not come back, and for more of them than there are now."""
    own = {name for name in modules if name.startswith("minicontainer")}
    assert sorted(modules & SLOW) == []
    assert len(own) <= ours, sorted(own)
    assert len(modules - own) <= others, sorted(modules - own)


@pytest.mark.needs("kvm")
def test_of_a_virtual_machine() -> None:
    check(imported("kvm-boot", "hello"), 48, 15)


@pytest.mark.needs("root", "cgroup2")
def test_of_a_container(rootfs: Path) -> None:
    imported("run", rootfs, "true")  # compiles the seccomp filter, if none is cached
    modules = imported("run", rootfs, "true")
    check(modules, 78, 11)
    assert not modules & {"_json", "fcntl", "itertools", "struct", "warnings"}


@pytest.mark.needs("root", "cgroup2")
def test_of_a_further_process(op: Operator) -> None:
    container = op.run("sleep", "1000")
    check(imported("exec", container, "true"), 98, 15)

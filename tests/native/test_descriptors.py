"""Callers with few descriptors left: whatever the number, a command works, or its error is one line of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from box import CLI, refusal, until

from minicontainer.container.registry import names
from minicontainer.detached.container import Container, containers

pytestmark = pytest.mark.needs("root")

LEAST = 5  # with fewer Python itself does not come up

COMMANDS = {
    "run": ["run", "ROOTFS", "/bin/true"],
    "run -d": ["run", "-d", "ROOTFS", "/bin/true"],
    "exec": ["exec", "ID", "/bin/true"],
    "ps": ["ps"],
    "kvm-boot": ["kvm-boot", "hello"],
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.needs("kvm")) if n == "kvm-boot" else n for n in COMMANDS]
)
def test_ulimit_n(name: str, rootfs: Path, make: Callable[..., Container]) -> None:
    words = {"ROOTFS": str(rootfs), "ID": make("/bin/sleep", "1000").id}
    command = [sys.executable, "-m", "minicontainer", *(words.get(word, word) for word in COMMANDS[name])]

    def run(number: int) -> tuple[int, str]:
        limited = ["prlimit", f"--nofile={number}", *command]
        done = subprocess.run(
            limited, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
        )
        return done.returncode, done.stderr

    numbers = [*range(LEAST, 46), 64]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(numbers, pool.map(run, numbers), strict=True))
    for container in containers():
        if container.id != words["ID"]:
            container.remove(force=True)
    assert found[64] == (0, "")
    refused = {number: said for number, (code, said) in found.items() if code}
    assert {n: said for n, said in refused.items() if said.count("\n") != 1 or "ulimit -n" not in said} == {}
    assert all(code in (0, 125) for code, _ in found.values())
    assert name == "ps" or LEAST in refused


@pytest.mark.parametrize("options", [["--privileged"], ["--privileged", "--userns", "host", "--network", "host"]])
def test_what_starts_with_few_is_removed_at_its_end(options: list[str], rootfs: Path) -> None:
    """Of those that need few to start, the monitor has to do with as few until the end."""
    started = 0
    for number in range(24, 48):
        words = ["run", "-d", "--rm", *options, str(rootfs), "/bin/true"]
        done = subprocess.run(
            ["prlimit", f"--nofile={number}", *CLI, *words], check=False, capture_output=True, text=True, timeout=120
        )
        started += done.returncode == 0
        if done.returncode:
            refusal(done, says=["ulimit -n"])
    assert 0 < started < 24
    until(lambda: containers() == [])
    assert os.listdir(os.path.dirname(names.detached(""))) == []


def test_clients_take_no_descriptor_that_a_monitor_needs(rootfs: Path) -> None:
    number = 48
    words = ["run", "-d", "--rm", "--privileged", str(rootfs), "/bin/sleep", "1000"]
    done = subprocess.run(
        ["prlimit", f"--nofile={number}", *CLI, *words], check=True, capture_output=True, text=True, timeout=120
    )
    c = Container(done.stdout.strip())
    with ExitStack() as stack:
        for _ in range(number):  # more than it can have
            stack.enter_context(c.connect())
        c.stop(0)
        until(lambda: containers() == [])
    assert not os.path.exists(c.directory)


def test_clients_take_no_descriptor_that_a_restart_needs(rootfs: Path) -> None:
    """Which needs more than a monitor keeps for itself: they are dropped, and connect again where they want more."""
    number = 48
    words = ["run", "-d", "--restart", "always", str(rootfs), "/bin/sleep", "1000"]
    done = subprocess.run(
        ["prlimit", f"--nofile={number}", *CLI, *words], check=True, capture_output=True, text=True, timeout=120
    )
    c = Container(done.stdout.strip())
    try:
        with ExitStack() as stack:
            for _ in range(number):
                stack.enter_context(c.connect())
            assert c.state.monitor is not None
            monitor = f"/proc/{c.state.monitor.pid}/fd"
            until(lambda: len(os.listdir(monitor)) > number - 16)
            os.kill(c.pid, 9)
            until(lambda: c.state.restarts > 0 and c.status == "running")
            assert (c.state.restarts, c.run(["/bin/true"]).returncode) == (1, 0)
    finally:
        c.remove(force=True)


SWEEP = """
import itertools, os, resource, sys
import minicontainer as mc
def run(): mc.run(["/bin/true"], rootfs=sys.argv[1], init=True, capture_output=True)
def detach(): return mc.Container.start(["/bin/true"], rootfs=sys.argv[1], name=f"few-{next(numbers)}", remove=True)
def enter(): other.run(["/bin/true"], capture_output=True)
def held():
    paths = {n: f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")}
    found = {n: os.readlink(path) for n, path in paths.items() if os.path.lexists(path)}
    return {n: path for n, path in found.items() if "/proc/" not in path and "id-ranges" not in path}  # a range is kept
numbers = itertools.count()
other = mc.Container(sys.argv[2])
high = resource.getrlimit(resource.RLIMIT_NOFILE)
for verb in (run, detach, enter):
    if started := verb(): started.wait()
    before = held()
    for more in range(40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + more, high[1]))
        started = None
        try:
            started = verb()
        except mc.Error as e:
            assert "Too many open files" in str(e), e
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, high)
        if started: started.wait()
        assert held() == before
    if started := verb(): started.wait()
print("good")
"""


def test_the_library_with_few_descriptors_left(rootfs: Path, make: Callable[..., Container]) -> None:
    """Each start raises an Error or works, and leaves no descriptor and no name."""
    other = make("/bin/sleep", "1000")
    command = [sys.executable, "-c", SWEEP, str(rootfs), other.id]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("good\n", "")
    assert [name for name in names.all_names() if name.startswith("few-")] == []

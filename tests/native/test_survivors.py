"""What survives a kill of its control group, or takes its time to end: nothing is said to have ended, or forgotten,
while something of it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import until
from supplies import Run

import minicontainer as mc
from minicontainer import doctor
from minicontainer import plan as p
from minicontainer.container.cgroup import orphans
from minicontainer.detached import client, termination
from minicontainer.detached import container as detached
from minicontainer.detached.container import Container
from minicontainer.detached.members import of_cgroup
from minicontainer.errors import Error, StepError
from minicontainer.linux.cgroup import Cgroup
from minicontainer.linux.process import stat
from minicontainer.plan.spawn import Spawn

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("cgroup2")]

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., Container]


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs without its main thread, for ever."""
    return compiled("headless", tmp_path_factory)


@pytest.fixture(scope="module")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that nests cgroups."""
    return compiled("nest", tmp_path_factory)


def compiled(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program, source = tmp_path_factory.mktemp(name) / name, ROOT / f"tests/native/{name}.c"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", program, source], check=True)
    return program


def is_headless(pid: int) -> bool:
    found = stat(pid)
    return found.state == "Z" and found.threads > 1


def has_ended(pid: int) -> bool:
    """Whoever has to reap it."""
    try:
        return stat(pid).has_ended
    except ProcessLookupError:
        return True


def members(container: Container) -> list[int]:
    with Cgroup.open(os.readlink(f"{container.directory}/cgroup")) as cgroup:
        return cgroup.procs


@pytest.fixture
def survivor(make: Make, headless: Path) -> tuple[Container, int]:
    """A container of the host's processes, and one of them that has no main thread."""
    c = make("sh", "-c", "/headless & exec sleep 1000", pid="host", mounts=[mc.Mount("/headless", str(headless))])
    (pid,) = until(lambda: [pid for pid in members(c) if pid != c.pid and is_headless(pid)])
    return c, pid


def test_one_whose_process_1_has_no_main_thread_cannot_be_entered(make: Make, headless: Path) -> None:
    """The kernel has no way into it; it is said, and all else works."""
    c = make("/headless", mounts=[mc.Mount("/headless", str(headless))])
    until(lambda: is_headless(c.pid or 0))
    with pytest.raises(mc.Error, match=r"^exec: the main thread of its process 1 .* has exited: no way leads in"):
        c.run(["true"])
    assert c.status == "running"
    c.stop(0)
    assert c.status == "exited"


# ---- control groups


def born_in(group: Cgroup, program: Path) -> subprocess.Popen[bytes]:
    """Once it is there as it will be."""
    script = f'echo $$ > "{group.path}/cgroup.procs"; exec "{program}"'
    process = subprocess.Popen(["sh", "-c", script])
    until(lambda: is_headless(process.pid))
    return process


def test_a_kill_ends_what_has_no_main_thread(headless: Path) -> None:
    with (
        Cgroup.create(f"test-{os.getpid()}") as group,
        Cgroup.create("inner", group) as inner,
        born_in(group, headless) as one,
        born_in(inner, headless) as other,
    ):
        group.kill()
        assert (one.wait(120), other.wait(120)) == (-9, -9)


def test_removal_ends_what_has_no_main_thread(headless: Path) -> None:
    group = Cgroup.create(f"test-{os.getpid()}")
    with born_in(group, headless) as process:
        group.remove(kill=True)
        assert process.wait(120) == -9
    assert not os.path.exists(group.path)


def test_nothing_is_born_in_what_was_killed() -> None:
    """Linux 6.18 would kill it."""
    with Cgroup.create(f"test-{os.getpid()}") as group, Spawn(p.Plan([p.sethostname("x")])) as child:
        group.kill()
        with pytest.raises(
            Error, match=r"cgroup .*: was killed, so new processes in it may be killed too \(create another\)"
        ):
            child.start("CLONE_NEWUTS", cgroup=group.birth_fd())
        said = ""
        try:
            child.start("CLONE_NEWUTS", cgroup=group.fd)
            child.wait()
        except StepError as error:
            said = str(error)
        assert not said or "killed in it by signal 9: a cgroup that was killed once can kill what is born" in said


# ---- in the foreground


def test_a_timeout_ends_what_has_no_main_thread(minicontainer_cli: Run, rootfs: Path, headless: Path) -> None:
    options = ["--pid", "host", "--timeout", "0.5", "-v", f"{headless}:/headless"]
    script = "/headless & echo $!; exec sleep 1000"
    done = minicontainer_cli("run", *options, rootfs, "sh", "-c", script)
    assert done.returncode == 124
    assert done.stderr == "minicontainer: --timeout 0.5: the container was killed\n"
    assert has_ended(int(done.stdout))


@pytest.mark.parametrize("init", [False, True])
def test_a_first_process_without_a_main_thread(rootfs: Path, headless: Path, init: bool) -> None:
    with mc.Popen(["/headless"], rootfs=str(rootfs), mounts=[mc.Mount("/headless", str(headless))], init=init) as c:
        until(lambda: any(map(is_headless, c.cgroup.procs)))
        assert c.poll() is None
        c.kill()
        assert c.wait(120) == -9


# ---- detached


@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_a_detached_end_takes_what_has_no_main_thread(survivor: tuple[Container, int], end: str) -> None:
    c, pid = survivor
    ends: dict[str, Callable[[], None]] = {"stop": lambda: c.stop(0), "remove": lambda: c.remove(force=True)}
    ends.get(end, c.kill)()
    if end != "remove":
        assert c.wait(120) in (137, 143)
    assert has_ended(pid)


def test_a_restart_begins_without_what_has_no_main_thread(make: Make, headless: Path) -> None:
    """Nor is the new process killed by the kill of the old ones."""
    options: dict[str, Any] = {"mounts": [mc.Mount("/headless", str(headless))], "restart": "always", "pid": "host"}
    c = make("sh", "-c", "/headless & exec sleep 1000", **options)
    (pid,) = until(lambda: [pid for pid in members(c) if pid != c.pid and is_headless(pid)])
    os.kill(c.pid, 9)
    until(lambda: c.state.restarts == 1 and c.status == "running")
    assert pid not in members(c)
    until(lambda: len(members(c)) == 2)


def test_a_detached_first_process_without_a_main_thread(make: Make, headless: Path) -> None:
    c = make("/headless", mounts=[mc.Mount("/headless", str(headless))])
    until(lambda: is_headless(c.pid))
    process = c.state.process
    assert process is not None
    assert process.is_alive()
    c.stop(0)
    assert c.wait(120) == 137
    assert not process.is_alive()


def test_what_was_executed_in_it(make: Make, headless: Path) -> None:
    c = make("sleep", "1000", mounts=[mc.Mount("/headless", str(headless))])
    with c.exec(["/headless"]) as process:
        until(lambda: is_headless(process.pid))
        process.kill()
        assert process.wait(120) == -9
    assert c.status == "running"


# ---- in cgroups that it made itself

DEPTH = 1100  # more than there are descriptors, and frames of Python


@pytest.fixture
def nested(make: Make, headless: Path, nest: Path) -> Callable[..., tuple[Container, list[int]]]:
    """A container that may make cgroups, and what it runs far down in them: two processes without main threads."""

    def start(**options: Any) -> tuple[Container, list[int]]:
        mounts = [mc.Mount(f"/{path.name}", str(path)) for path in (headless, nest)]
        script = f"cd /sys/fs/cgroup && /nest {DEPTH} /headless & exec sleep 1000"
        c = make("sh", "-c", script, pid="host", privileged=True, mounts=mounts, **options)
        return c, until(lambda: found if len(found := [t.pid for t in c.tasks() if is_headless(t.pid)]) == 2 else None)

    return start


@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_an_end_takes_what_it_has_nested(nested: Callable[..., tuple[Container, list[int]]], end: str) -> None:
    c, pids = nested()
    path = os.readlink(f"{c.directory}/cgroup")
    ends: dict[str, Callable[[], None]] = {"stop": lambda: c.stop(0), "remove": lambda: c.remove(force=True)}
    ends.get(end, c.kill)()
    if end != "remove":
        assert c.wait(60) in (137, 143)
    assert all(map(has_ended, pids))
    assert not os.path.exists(path)


def test_a_restart_takes_what_it_has_nested(nested: Callable[..., tuple[Container, list[int]]]) -> None:
    c, pids = nested(restart="on-failure:1")
    os.kill(c.pid, 9)
    until(lambda: c.state.restarts == 1 and c.status == "running")
    assert all(map(has_ended, pids))


def test_who_sees_a_dead_monitor_takes_what_it_has_nested(
    nested: Callable[..., tuple[Container, list[int]]], minicontainer_cli: Run
) -> None:
    c, pids = nested()
    path, monitor = os.readlink(f"{c.directory}/cgroup"), c.state.monitor
    assert monitor is not None
    os.kill(monitor.pid, 9)
    until(lambda: not monitor.is_alive())
    assert minicontainer_cli("rm", "-f", c.id).returncode == 0
    assert all(map(has_ended, pids))
    assert not os.path.exists(path)


def test_a_timeout_takes_what_it_has_nested(rootfs: Path, headless: Path, nest: Path) -> None:
    mounts = [mc.Mount(f"/{path.name}", str(path)) for path in (headless, nest)]
    script = f"cd /sys/fs/cgroup && /nest {DEPTH} /headless & exec sleep 1000"
    options: dict[str, Any] = {"pid": "host", "privileged": True, "mounts": mounts}
    with mc.Popen(["sh", "-c", script], rootfs=str(rootfs), **options) as c:
        found = until(lambda: f if len(f := [pid for pid in of_cgroup(c.cgroup) if is_headless(pid)]) == 2 else None)
        c.kill()
        assert c.wait(60) == -9
        assert all(map(has_ended, found))


# ---- what no signal ends, for a while


class Freezer:
    """A control group of version 1 in which processes stand still, also those that were killed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hold(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))
        (self.path / "freezer.state").write_text("FROZEN")
        until(lambda: (self.path / "freezer.state").read_text() == "FROZEN\n")

    def let_go(self) -> None:
        (self.path / "freezer.state").write_text("THAWED")


@pytest.fixture
def freezer(tmp_path: Path) -> Iterator[Freezer]:
    mount = tmp_path / "freezer"
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "freezer", "none", str(mount)], check=True)
    made = Freezer(mount / f"test-{os.getpid()}")
    made.path.mkdir()
    try:
        yield made
    finally:
        made.let_go()
        until(lambda: not (made.path / "cgroup.procs").read_text())
        made.path.rmdir()
        subprocess.run(["umount", str(mount)], check=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (detached, termination, client):
        monkeypatch.setattr(module, "MONITOR_TIMEOUT", 1.0)


@pytest.mark.needs("freezer")
@pytest.mark.usefixtures("impatient")
def test_what_does_not_end_is_kept(make: Make, freezer: Freezer, minicontainer_cli: Run) -> None:
    c = make("sh", "-c", "sleep 1000 & exec sleep 1000", pid="host", stop_signal="KILL")
    (other,) = until(lambda: [pid for pid in members(c) if pid != c.pid])
    freezer.hold(other)
    survives = rf"{c.id[:12]}: has not ended 1 seconds after the kill: processes are still in it: {other}$"
    with pytest.raises(Error, match=f"stop {survives}"):
        c.stop(0)
    until(lambda: c.status == "stopping")
    assert (c.state.exit_code, c.pid) == (137, 0)
    with pytest.raises(Error, match=f"rm {c.id[:12]}: is running"):
        c.remove()
    with pytest.raises(Error, match=f"rm {survives}"):
        c.remove(force=True)
    doctor.clean(".")
    assert minicontainer_cli("prune", "-f").returncode == 0
    with pytest.raises(TimeoutError):
        c.wait(0.1)
    assert "Stopping" in minicontainer_cli("ps").stdout
    assert members(c) == [other]
    freezer.let_go()
    assert c.wait(120) == 137
    assert c.status == "exited"


@pytest.mark.needs("freezer")
def test_what_does_not_end_of_a_dead_monitor_is_kept(
    make: Make, freezer: Freezer, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = make("sh", "-c", "sleep 1000 & exec sleep 1000", pid="host")
    (other,) = until(lambda: [pid for pid in members(c) if pid != c.pid])
    freezer.hold(other)
    monitor = c.state.monitor
    assert monitor is not None
    os.kill(monitor.pid, 9)
    until(lambda: not monitor.is_alive())
    monkeypatch.setattr(Cgroup.remove, "__kwdefaults__", {"kill": False, "timeout": 0.5})
    with pytest.raises(StepError, match=f"processes are still in it: {other}"):
        c.remove(force=True)
    told = [finding.verdict for finding in doctor.clean(".") if c.id in finding.verdict.detail]
    assert [(verdict.status, verdict.remedy) for verdict in told] == [("no", f"processes are still in it: {other}")]
    assert os.path.isdir(c.directory)
    freezer.let_go()
    c.remove(force=True)
    assert not os.path.isdir(c.directory)


@pytest.mark.needs("freezer")
def test_what_does_not_end_in_the_foreground_is_told(
    rootfs: Path, freezer: Freezer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cgroup.remove, "__kwdefaults__", {"kill": False, "timeout": 0.5})
    c = mc.Popen(["sh", "-c", "sleep 1000 & exec sleep 1000"], rootfs=str(rootfs), pid="host")
    path = c.cgroup.path
    (other,) = until(lambda: [pid for pid in c.cgroup.procs if pid != c.pid])
    freezer.hold(other)
    c.kill()
    with pytest.raises(StepError, match=f"processes are still in it: {other}"):
        c.wait()
    c.close()
    assert os.path.isdir(path)
    freezer.let_go()
    until(lambda: not Cgroup.open(path).populated)
    os.rmdir(path)
    assert path not in orphans.find()

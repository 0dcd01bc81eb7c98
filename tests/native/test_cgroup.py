"""``Cgroup`` where no controller is needed, and a container's place: any host with cgroup v2, hybrid or not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from minicontainer import runtime
from minicontainer.container.cgroup import limits, orphans, placement
from minicontainer.errors import StepError, UnsupportedError
from minicontainer.linux import cgroupfs
from minicontainer.linux.cgroup import Cgroup, hierarchy
from minicontainer.native import lib
from minicontainer.spec import Limits

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("cgroup2")]

IDENT = "0123456789ab"


@pytest.fixture
def group() -> Iterator[Cgroup]:
    with Cgroup.create(f"test-{os.getpid()}") as made:
        yield made


@pytest.fixture
def sleeper(group: Cgroup) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        group.add(process.pid)
        yield process
        process.kill()


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_create_and_remove(group: Cgroup) -> None:
    assert os.path.samestat(os.fstat(group.fd), os.stat(group.path))
    group.remove()
    assert not os.path.exists(group.path)
    assert group.fd == -1
    group.remove()  # again: nothing to do


def test_a_name_that_is_taken(group: Cgroup) -> None:
    with pytest.raises(StepError) as caught:
        Cgroup.create(group.name)
    assert caught.value.errno == errno.EEXIST
    assert str(caught.value) == f"mkdir('{group.path}'): File exists"
    with Cgroup.create(group.name, exist_ok=True) as same:
        assert not same.created
    assert os.path.exists(group.path)


def test_one_that_was_opened_is_only_closed(group: Cgroup) -> None:
    with Cgroup.open(group.path) as opened:
        assert opened.procs == []
    assert os.path.exists(group.path)


def test_no_such_group() -> None:
    with pytest.raises(StepError, match=r"no-such'\): No such file"):
        Cgroup.open(f"{hierarchy().path}/no-such")


def test_procs_and_own(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    assert group.procs == [sleeper.pid]
    assert group.populated
    with open(f"/proc/{sleeper.pid}/cgroup", encoding="utf-8") as file:
        assert cgroupfs.parse_membership(file.read()) == f"/{group.name}"
    with Cgroup.own() as own:
        assert os.getpid() in own.procs


def test_many_processes_are_all_listed(group: Cgroup) -> None:
    """cgroup.procs comes in pages; each number takes 3 to 8 bytes of 4096."""
    fork = "for _ in range(1500): os.fork() or (os.read(0, 1), os._exit(0))"
    code = f"import os\nos.read(0, 1)\n{fork}\nprint(flush=True)\nos.read(0, 1)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        group.add(process.pid)
        process.stdin.write(b"1")  # it forks once it is in there
        process.stdin.flush()
        process.stdout.readline()
        assert len(set(group.procs)) == 1501
        group.kill()


def test_freeze_and_thaw(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    group.freeze()
    assert group.events["frozen"] == 1
    group.thaw()
    assert group.events["frozen"] == 0
    assert sleeper.poll() is None


def test_what_is_frozen_stands_still(group: Cgroup) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        group.add(process.pid)
        group.freeze()
        before = group.usage()["cputime"]
        time.sleep(0.1)
        assert group.usage()["cputime"] == before
        process.kill()  # reaches it though it is frozen
        assert process.wait(120) == -9


def test_thaw_below_a_frozen_group_times_out(group: Cgroup) -> None:
    with Cgroup.create("inner", group) as inner, subprocess.Popen(["sleep", "1000"]) as process:
        inner.add(process.pid)
        group.freeze()
        with pytest.raises(StepError, match="above it frozen") as caught:
            inner.thaw(timeout=0.05)
        assert caught.value.errno == errno.ETIMEDOUT
        group.kill()


@pytest.mark.parametrize("kill", [Cgroup.kill, Cgroup._kill_frozen])
def test_kill_reaches_what_is_below(group: Cgroup, sleeper: subprocess.Popen[bytes], kill: object) -> None:
    inner = Cgroup.create("inner", group)
    with inner, subprocess.Popen(["sleep", "1000"]) as other:
        inner.add(other.pid)
        assert callable(kill)
        kill(group)
        assert (sleeper.wait(120), other.wait(120)) == (-9, -9)
        assert group.wait("populated", 0, 10)
        assert group.wait("frozen", 0, 10)


def test_usage_and_stat(group: Cgroup) -> None:
    code = "import time\nend = time.process_time() + .2\nwhile time.process_time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", f"input()\n{code}"], stdin=subprocess.PIPE) as process:
        group.add(process.pid)
        process.communicate(b"\n")
    usage = group.usage()
    total, user, system = usage["cputime"], usage["cputime_user"], usage["cputime_system"]
    assert total is not None
    assert user is not None
    assert system is not None
    assert 0.15 < total < 5
    assert user + system == pytest.approx(total, abs=1e-4)
    assert group.stat["usage_usec"] == round(total * 1e6)
    if os.path.exists(f"{group.path}/cpu.pressure"):
        assert usage["pressure_cpu_some"] is not None
        assert group.pressure("cpu")["some"].total >= usage["pressure_cpu_some"]
    assert group.usage(pressure=False)["pressure_cpu_some"] is None


def test_unknown_usage_is_none_and_nothing_transferred_zero(group: Cgroup) -> None:
    usage = group.usage()
    assert (usage["memory_peak"] is None) == (not os.path.exists(f"{group.path}/memory.peak"))
    assert (usage["io_read"] is None) == (not os.path.exists(f"{group.path}/io.stat"))


def test_a_file_that_is_not_there_is_named(group: Cgroup) -> None:
    with Cgroup.create("inner", group) as inner, pytest.raises(StepError) as caught:  # a group without controllers
        inner.memory_max = 2**20
    if "memory" in hierarchy().controllers:
        hint = "is the memory controller enabled? enable('memory') of the parent"
    else:
        hint = ": ".join(cgroupfs.absence("memory"))
    failed = "No such file or directory"
    assert str(caught.value) == f"write('{group.path}/inner/memory.max', '1048576'): {failed} ({hint})"
    with pytest.raises(StepError, match="no-such-file"):
        group.read("no-such-file")


def test_a_controller_that_cannot_be_enabled_says_why(group: Cgroup) -> None:
    absent = min({"memory", "cpu", "hugetlb", "rdma", "misc"} - hierarchy().controllers, default="")
    wanted = absent or "cpu"  # of which the group's own parent gives it nothing
    with Cgroup.create("inner", group) as inner, pytest.raises(StepError) as caught:
        inner.enable(wanted)
    assert caught.value.errno == errno.ENOENT
    said = ": ".join(cgroupfs.absence(absent)) if absent else "enabled in each cgroup above"
    assert said in str(caught.value)


def test_remove_what_is_busy(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(StepError, match=f"processes are still in it: {sleeper.pid}") as caught:
        group.remove(timeout=0.05)
    assert caught.value.errno == errno.EBUSY
    group.remove(kill=True)
    assert not os.path.exists(group.path)
    assert sleeper.wait(120) == -9


@pytest.mark.parametrize("act", [Cgroup.kill, partial(Cgroup.remove, kill=True)])
def test_one_that_another_removes_meanwhile(
    group: Cgroup, sleeper: subprocess.Popen[bytes], act: Callable[[Cgroup], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who end the same container: rm -f, and the run in whose foreground it is."""
    kill = Cgroup.kill
    late = Cgroup.open(group.path)

    def second(cgroup: Cgroup) -> None:
        if cgroup is late:
            group.remove(kill=True)
        kill(cgroup)

    monkeypatch.setattr(Cgroup, "kill", second)
    with late:
        (second if act is kill else act)(late)
    assert sleeper.wait(120) == -signal.SIGKILL
    assert not os.path.exists(group.path)


def test_remove_waits_for_the_end_of_what_is_inside(group: Cgroup) -> None:
    with subprocess.Popen(["sleep", "0.2"]) as process:
        group.add(process.pid)
        group.remove()
        assert state(process.pid) == "Z"
    assert not os.path.exists(group.path)


def test_remove_what_was_made_inside(group: Cgroup) -> None:
    path = group.path
    for name in ("a", "b"):
        os.makedirs(f"{path}/{name}/c/d")
    deep = path + "/e" * 300
    os.makedirs(deep)
    group.remove()
    assert not os.path.exists(path)


# ---- a container's place


def test_a_container_without_limits_has_a_place() -> None:
    place = limits.place(Limits(), IDENT)
    assert place is not None
    with place.group as group:
        assert group.path == f"{hierarchy().path}/{placement.parent_name()}/{IDENT}-{runtime.mark()}"
        assert group.path not in orphans.find()
        limits.apply(group, Limits())
        assert not limits.oom_killed(group)


def test_a_home_that_was_removed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "parent_name", lambda: f"test-home-{os.getpid()}")
    monkeypatch.setattr(placement, "_home", None)
    for _ in range(3):
        place = limits.place(Limits(), IDENT)
        assert place is not None
        group = place.group
        group.remove()
        os.rmdir(os.path.dirname(group.path))


def test_an_exception_closes_descriptors_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler may raise it when the cgroup has just been made."""
    true, made = lib.mc_place, []

    class Interrupting:
        def __getattr__(self, name: str) -> Any:
            return interrupted if name == "mc_place" else getattr(lib, name)

    def interrupted(struct: Any) -> None:
        assert true(struct) == 0
        made.append(struct)
        raise KeyboardInterrupt

    monkeypatch.setattr(placement, "lib", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        limits.place(Limits(), IDENT)
    (struct,) = made
    assert (struct.cgroup, struct.lock) == (-1, -1)
    parent = f"{hierarchy().path}/{placement.parent_name()}"
    assert not [name for name in os.listdir(parent) if name.startswith(IDENT)]
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]  # they get the numbers that were closed
    made.clear()
    del struct
    for fd in fds:
        os.close(fd)


def test_places_are_made_from_many_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> int:
        place = limits.place(Limits(), f"{number:012x}")
        assert place is not None
        with place.group as group:
            return len(group.usage())

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(200))) == {10}


def test_leftovers_of_a_killed_owner_are_found_and_removed() -> None:
    code = f"""
import os, subprocess
from minicontainer.container.cgroup import limits, orphans
from minicontainer.spec import Limits
group = limits.place(Limits(), "{IDENT}").group
group.add(subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
print(group.path, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    path = done.stdout.strip()
    assert done.returncode == -9, done.stderr
    assert path in orphans.find()
    assert path in orphans.clean()
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("wanted", "controller", "message"),
    [
        (Limits(memory="64M"), "memory", "memory 67108864: the memory controller is bound to cgroup v1 at /"),
        (Limits(cpus=0.5), "cpu", "cpus 0.5: the cpu controller is bound to cgroup v1 at /"),
        (Limits(cpuset_cpus="0"), "cpuset", "cpuset_cpus 0: the cpuset controller is bound to cgroup v1 at /"),
        (Limits(pids=5), "pids", "pids 5: the pids controller is bound to cgroup v1 at /"),
        (Limits(blkio_weight=50), "io", "blkio_weight 50: the io controller is bound to cgroup v1 at /"),
    ],
)
def test_a_limit_is_enforced_or_refused(wanted: Limits, controller: str, message: str) -> None:
    """Where the controllers are on version 1 the message says so; elsewhere the limit must be taken."""
    bound = any(mount.version == 1 and controller_of(mount.options, controller) for mount in cgroupfs.mounts())
    if bound:
        with pytest.raises(UnsupportedError) as caught:
            limits.place(wanted, IDENT)
        assert str(caught.value).startswith(message)
        assert "systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all" in caught.value.hint
    else:
        place = limits.place(wanted, IDENT)
        assert place is not None
        with place.group as group:
            assert controller in group.controllers


def controller_of(options: tuple[str, ...], controller: str) -> bool:
    return cgroupfs.V1_NAMES.get(controller, controller) in options


def test_several_remove_the_same_nested_ones() -> None:
    from concurrent.futures import ThreadPoolExecutor

    group = Cgroup.create(f"test-{os.getpid()}")
    below = group.path
    for _ in range(200):
        for name in ("a", "b"):
            os.mkdir(f"{below}/{name}")
        below += "/a"
    groups = [Cgroup.open(group.path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Cgroup.remove, groups))
    group.close()
    assert not os.path.exists(group.path)

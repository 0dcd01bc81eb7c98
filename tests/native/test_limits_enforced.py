"""Limits that the kernel really enforces: they need cgroup v2 controllers, so mostly run in the rig."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from abilities import as_user_prefix

from minicontainer.container.cgroup import limits, placement
from minicontainer.errors import SpecError
from minicontainer.linux.cgroup import Cgroup, hierarchy
from minicontainer.spec import DeviceRate, Limits

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("cgroup2")]

MIB = 2**20
USER = 1000
Place = Callable[[Limits], Cgroup]


@pytest.fixture
def place() -> Iterator[Place]:
    """Makes containers' cgroups with limits; removed at the end with all that is in them."""
    made: list[Cgroup] = []

    def one(wanted: Limits) -> Cgroup:
        found = limits.place(wanted, f"{len(made):012x}")
        assert found is not None
        group = found.group
        made.append(group)
        limits.apply(group, wanted)
        return group

    yield one
    for group in made:
        group.remove(kill=True)


def run_in(group: Cgroup, code: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs Python code in the cgroup: it waits until it has been moved there."""
    command = [sys.executable, "-S", "-c", f"import os, sys\nos.read(0, 1)\n{code}", *args]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        group.add(process.pid)
        try:
            out, err = process.communicate("\n", timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


# ---- memory


@pytest.mark.needs("cgroup-memory")
def test_memory_files(place: Place) -> None:
    group = place(Limits(memory="64M", memory_swap="80M", memory_reservation="16M"))
    assert (group.memory_max, group.memory_low, group.memory_oom_group) == (64 * MIB, 16 * MIB, 1)
    assert group.memory_swap_max == 16 * MIB
    assert place(Limits(memory="64M")).memory_swap_max == 64 * MIB
    assert place(Limits(memory="64M", memory_swap=-1)).memory_swap_max is None


@pytest.mark.needs("cgroup-memory")
def test_beyond_memory_the_whole_group_is_killed(place: Place) -> None:
    group = place(Limits(memory="32M"))
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        group.add(bystander.pid)
        done = run_in(group, "b = bytearray(100 << 20)\nb[::4096] = b'x' * len(b[::4096])\nprint('alive')")
        assert (done.returncode, done.stdout) == (-9, "")
        assert bystander.wait(120) == -9  # memory.oom.group
    assert limits.oom_killed(group)
    peak = group.usage()["memory_peak"]
    if peak is not None:  # Linux 5.19
        assert 16 * MIB < peak <= 32 * MIB


@pytest.mark.needs("cgroup-memory")
def test_within_memory_nothing_happens(place: Place) -> None:
    group = place(Limits(memory="64M"))
    assert run_in(group, "b = bytearray(b'x' * (8 << 20))\nprint('alive')").stdout == "alive\n"
    assert not limits.oom_killed(group)
    assert group.stat["pgfault"] > 0
    assert group.events["oom_kill"] == 0


# ---- pids


@pytest.mark.needs("cgroup-pids")
def test_a_fork_bomb_stays_within_pids_and_is_removed(place: Place) -> None:
    group = place(Limits(pids=12))
    assert group.pids_max == 12
    bomb = """
print(flush=True)
while True:
    try:
        os.fork()
    except BlockingIOError:
        pass
"""
    command = [sys.executable, "-S", "-c", f"import os\nos.read(0, 1)\n{bomb}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        group.add(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while "max 0" in group.read("pids.events"):
            assert time.monotonic() < deadline, "the bomb never met its limit"
            time.sleep(0.05)
        assert len(group.procs) <= 12
        assert group.usage()["pids_peak"] in (12, None)  # None before Linux 6.1
        path = group.path
        group.remove(kill=True)
        assert not os.path.exists(path)
        assert process.wait(120) == -9


@pytest.mark.needs("cgroup-pids")
def test_unlimited_pids(place: Place) -> None:
    assert place(Limits(pids=-1)).pids_max is None


# ---- cpu

BUSY = """
import time
before, end = time.process_time(), time.monotonic() + 1
while time.monotonic() < end:
    pass
print(time.process_time() - before)
"""


@pytest.mark.needs("cgroup-cpu")
def test_cpus_throttle(place: Place) -> None:
    group = place(Limits(cpus=0.2))
    assert group.cpu_max == (20_000, 100_000)
    used = float(run_in(group, BUSY).stdout)
    assert group.stat["nr_throttled"] >= 5
    assert used < 0.5
    total = group.usage()["cputime"]
    assert total is not None
    assert total >= used * 0.5


@pytest.mark.needs("cgroup-cpu")
def test_cpu_shares(place: Place) -> None:
    assert place(Limits(cpu_shares=2048)).cpu_weight == limits.cpu_weight(2048) == 79


@pytest.mark.needs("cgroup-cpuset")
def test_cpuset_is_what_the_program_sees(place: Place) -> None:
    last = max(os.sched_getaffinity(0))
    group = place(Limits(cpuset_cpus=str(last)))
    assert group.cpuset_cpus == str(last)
    assert run_in(group, "print(os.sched_getaffinity(0))").stdout == f"{{{last}}}\n"


@pytest.mark.needs("cgroup-cpuset")
def test_absent_cpus_are_refused(place: Place) -> None:
    with pytest.raises(SpecError, match=r"cpuset_cpus 0-4095: CPU \d+ is offline or not ours to use \(available: 0"):
        place(Limits(cpuset_cpus="0-4095"))


# ---- io


@pytest.fixture
def disk() -> tuple[str, str]:
    """A directory on a block device, and the node of that device."""
    directory = os.environ["RIG_DISK"]
    number = os.stat(directory).st_dev
    with open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/uevent", encoding="utf-8") as file:
        name = dict(line.strip().split("=", 1) for line in file)["DEVNAME"]
    return directory, f"/dev/{name}"


WRITE = """
import mmap, time
page = mmap.mmap(-1, 1 << 19)
page.write(b"x" * (1 << 19))
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
start = time.monotonic()
for _ in range(6):
    os.write(fd, page)
os.unlink(sys.argv[1])
print(time.monotonic() - start)
"""


@pytest.mark.needs("cgroup-io")
@pytest.mark.needs("disk")
def test_write_rate_is_kept_and_counted(place: Place, disk: tuple[str, str]) -> None:
    directory, device = disk
    group = place(Limits(device_write_bps=(DeviceRate(device, 2 * MIB),), device_read_iops=(DeviceRate(device, 1000),)))
    number = limits.device_number("device", device)
    assert group.io_max == {number: {"rbps": None, "wbps": 2 * MIB, "riops": 1000, "wiops": None}}
    done = run_in(group, WRITE, f"{directory}/written-{os.getpid()}")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 1.0  # 3 MiB at 2 MiB a second
    written = group.usage()["io_write"]
    assert written is not None
    assert written >= 3 * MIB


@pytest.mark.needs("cgroup-io")
def test_blkio_weight(place: Place) -> None:
    group = place(Limits(blkio_weight=500))
    assert group.io_weight == 4950


@pytest.mark.needs("cgroup-io")
def test_a_character_device_is_refused(place: Place) -> None:
    with pytest.raises(SpecError, match="device_read_bps /dev/null: is not a block device"):
        place(Limits(device_read_bps=(DeviceRate("/dev/null", MIB),)))


# ---- an ordinary user


@pytest.fixture
def delegated() -> Iterator[Cgroup]:
    """A cgroup with all controllers, given to an ordinary user as cgroups(7) "Delegation" has it."""
    with Cgroup.create(f"test-delegated-{os.getpid()}") as group:
        for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
            os.chown(f"{group.path}/{name}", USER, USER)
        yield group


def as_user_in(group: Cgroup, code: str) -> subprocess.CompletedProcess[str]:
    """Python code of an ordinary user whose cgroup is ``group``."""
    imports = "from minicontainer.container.cgroup import limits, orphans\nfrom minicontainer.spec import Limits"
    command = [sys.executable, "-c", f"import os, subprocess\n{imports}\n{code}"]
    start = f'echo 0 > "{group.path}/cgroup.procs"; exec "$@"'
    return subprocess.run(
        ["sh", "-c", start, "sh", *as_user_prefix(), *command], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.needs("user")
@pytest.mark.needs("cgroup-memory")
@pytest.mark.needs("cgroup-pids")
def test_a_user_limits_below_a_delegated_cgroup(delegated: Cgroup) -> None:
    code = """
wanted = Limits(memory="64M", pids=20)
group = limits.place(wanted, "0123456789ab").group
limits.apply(group, wanted)
child = subprocess.Popen(["sleep", "1000"])
group.add(child.pid)
print(group.path.rpartition("-")[0], group.memory_max, group.pids_max, group.procs == [child.pid])
print(open("/proc/self/cgroup").read().strip())
print(limits.place(Limits(), "ba9876543210").group.usage()["memory_peak"])
group.remove(kill=True)
print(os.path.exists(group.path), child.wait())
"""
    done = as_user_in(delegated, code)
    assert done.returncode == 0, done.stderr
    place, own, peak, end = done.stdout.splitlines()
    assert place == f"{delegated.path}/minicontainer/0123456789ab {64 * MIB} 20 True"
    assert own == f"0::/{delegated.name}/{placement.CALLER}"
    assert peak == "0"
    assert end == "False -9"
    assert "memory" in delegated.enabled


@pytest.mark.needs("user")
def test_a_user_without_a_delegated_cgroup_runs_without_limits_only() -> None:
    code = """
print(limits.place(Limits(), "0123456789ab"), limits.place(Limits(), "0123456789ab"), orphans.find())
from minicontainer.errors import UnsupportedError
try:
    limits.place(Limits(memory="64M"), "0123456789ab")
except UnsupportedError as error:
    print(error)
"""
    with Cgroup.create(f"test-not-delegated-{os.getpid()}") as group:
        done = as_user_in(group, code)
        assert done.returncode == 0, done.stderr
        nothing, refusal = done.stdout.splitlines()
        assert nothing == "None None []"
        if "memory" in hierarchy().controllers:
            reason = f"{group.path} is not delegated to user {USER}"
            assert refusal == f"memory {64 * MIB}: {reason} (run it under: systemd-run --user --scope -p Delegate=yes)"
        else:
            assert refusal.startswith(f"memory {64 * MIB}: the memory controller is bound to cgroup v1")


@pytest.mark.needs("user")
def test_a_user_without_limits_uses_a_delegated_cgroup(delegated: Cgroup) -> None:
    code = """
group = limits.place(Limits(), "0123456789ab").group
print(group.path.rpartition("-")[0])
print(open("/proc/self/cgroup").read().strip().splitlines()[-1])
group.remove()
"""
    done = as_user_in(delegated, code)
    assert done.returncode == 0, done.stderr
    # nothing had to be enabled, so nobody was moved
    assert done.stdout == f"{delegated.path}/minicontainer/0123456789ab\n0::/{delegated.name}\n"


@pytest.mark.needs("user")
@pytest.mark.needs("cgroup-memory")
def test_a_controller_that_was_not_delegated(delegated: Cgroup) -> None:
    with Cgroup.create("inner", delegated) as inner:  # delegated gives its children no controllers
        for name in ("", "cgroup.procs", "cgroup.subtree_control"):
            os.chown(f"{inner.path}/{name}", USER, USER)
        done = as_user_in(inner, 'limits.place(Limits(memory="64M"), "0123456789ab")')
    assert done.returncode == 1
    assert f"the memory controller is not delegated to {inner.path} (systemctl edit user@.service" in done.stderr

"""The rig itself: what vm.py promises to its caller, and what the guest offers. Two boots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.needs("rig-host")

HERE = Path(__file__).resolve().parent
CRASH = "sync; echo c >/proc/sysrq-trigger; sleep 60"

# Runs in the guest, and writes what it finds to $RIG_OUTPUT/facts.
LOOK = r"""
import fcntl, json, os, subprocess, sys

def read(path):
    with open(path) as file:
        return file.read()

def sh(command):
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()

user = "setpriv --reuid=1000 --regid=1000 --clear-groups "
kvm = os.open("/dev/kvm", os.O_RDWR)
disk = os.stat(os.environ["RIG_DISK"]).st_dev
top = "/sys/fs/cgroup/"
os.mkdir(top + "look")
with open(top + "look/io.max", "w") as file:
    file.write(f"{os.major(disk)}:{os.minor(disk)} wbps=1048576")
with open("written-in-the-rig", "w") as file:
    file.write("this stays in the guest")
facts = {
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "user": os.geteuid(),
    "cgroup mounts": sh("grep -o ' - cgroup.*' /proc/self/mountinfo").split()[1::4],
    "controllers": read(top + "cgroup.controllers").split(),
    "enabled": read(top + "cgroup.subtree_control").split(),
    "io.max": read(top + "look/io.max"),
    "vm": fcntl.ioctl(kvm, 0xAE01, 0),
    "svm": "svm" in read("/proc/cpuinfo").split(),
    "modules": [line.split()[0] for line in read("/proc/modules").splitlines()],
    "interfaces": os.listdir("/sys/class/net"),
    "devices": [name for name in ("fuse", "net/tun", "loop-control") if os.close(os.open("/dev/" + name, os.O_RDWR)) is None],
    "disk": sh("stat -f -c %T $RIG_DISK"),
    "ordinary": sh(user + "id -un; grep -i capeff /proc/self/status | " + user + "cat; getent passwd rig"),
    "reads": sh(user + f"cat {sys.argv[1]}/vm.py | wc -c; {user} {sys.executable} -c 'print(1)'"),
    "userns": sh(user + "unshare --user --map-root-user id -u"),
    "ranges": read("/etc/subuid") + read("/etc/subgid"),
    "overlay": sh("cd $TMPDIR && mkdir l u w m && unshare -m mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m && echo ok"),
}
with open(os.environ["RIG_OUTPUT"] + "/facts", "w") as file:
    json.dump(facts, file)
print("to stdout")
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


class Visit(NamedTuple):
    """One boot: how it ended, and what the guest found."""

    done: subprocess.CompletedProcess[str]
    facts: dict[str, Any]


def vm(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "vm.py"), *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    output = tmp_path_factory.mktemp("rig") / "out,put"
    options = ("--output", output, "--env", "GIVEN=a b'c", "--env", "NAMED", "--module", "dummy", "--time")
    done = vm(*options, "--", sys.executable, "-c", LOOK, HERE, NAMED="from here", PYTHONNOUSERSITE="1", UNNAMED="no")
    facts = output / "facts"
    assert facts.exists(), done.stderr
    return Visit(done, json.loads(facts.read_text(encoding="utf-8")))


def test_status_and_streams(visit: Visit) -> None:
    assert visit.done.returncode == 7
    assert visit.done.stdout == "to stdout\n"
    said = visit.done.stderr.splitlines()
    assert said[0] == "to stderr"
    assert said[1].startswith("rig: boot ")
    assert len(said) == 2


def test_environment(visit: Visit) -> None:
    environment = visit.facts["environment"]
    assert environment["GIVEN"] == "a b'c"
    assert environment["NAMED"] == "from here"
    assert environment["PYTHONNOUSERSITE"] == "1"
    assert "UNNAMED" not in environment
    assert environment["RIG"] == "1"
    assert visit.facts["directory"] == os.getcwd()
    assert visit.facts["user"] == 0


def test_writes_vanish(visit: Visit) -> None:
    assert visit.facts["directory"]
    assert not Path("written-in-the-rig").exists()


def test_cgroups(visit: Visit) -> None:
    assert visit.facts["cgroup mounts"] == ["cgroup2"]
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(visit.facts["controllers"])
    assert visit.facts["enabled"] == visit.facts["controllers"]
    assert "wbps=1048576" in visit.facts["io.max"]


def test_devices(visit: Visit) -> None:
    assert visit.facts["vm"] > 2
    assert visit.facts["svm"]
    assert visit.facts["devices"] == ["fuse", "net/tun", "loop-control"]
    assert visit.facts["disk"] == "ext2/ext3"  # as stat(1) calls ext4 too
    assert visit.facts["overlay"] == "ok"


def test_network(visit: Visit) -> None:
    assert "lo" in visit.facts["interfaces"]
    assert not [name for name in visit.facts["interfaces"] if name.startswith(("eth", "en"))]
    assert {"veth", "bridge", "nf_tables", "tun", "overlay", "dummy"} <= set(visit.facts["modules"])


def test_ordinary_user(visit: Visit) -> None:
    assert visit.facts["ordinary"].splitlines()[0] == "rig"
    assert visit.facts["ordinary"].endswith(":1000:1000:rig:/home/rig:/bin/sh")
    assert visit.facts["reads"].split() == [str((HERE / "vm.py").stat().st_size), "1"]
    assert visit.facts["userns"] == "0"
    assert visit.facts["ranges"] == "rig:100000:65536\n" * 2


def test_a_guest_that_dies() -> None:
    done = vm("--", "sh", "-c", CRASH)
    assert done.returncode == 125
    assert "ended without a result" in done.stderr
    assert "sysrq" in done.stderr  # what the console said last


def test_timeout() -> None:
    done = vm("--timeout", "0.5", "--", "true")
    assert done.returncode == 124
    assert done.stderr == "rig: timeout after 0.5 s\n"


def test_a_missing_program() -> None:
    done = vm("--", "true", PATH="/nonexistent")
    assert done.returncode == 125
    assert "is missing (apt-get install " in done.stderr


def test_bad_usage() -> None:
    assert vm("--").returncode == 2
    assert vm("--memory", "much", "--", "true").returncode == 2


def test_the_cache_heals(tmp_path: Path) -> None:
    """Concurrent callers, on a cache that a killed one left half made."""
    assert vm("--prepare").returncode == 0
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    real = Path(os.environ.get("MINICONTAINER_CACHE") or Path(shared) / "minicontainer")
    (tmp_path / "kernel").symlink_to(real.absolute() / "kernel")
    (tmp_path / "making/kernel").mkdir(parents=True)
    command = [sys.executable, str(HERE / "vm.py"), "--prepare"]
    environment = {**os.environ, "MINICONTAINER_CACHE": str(tmp_path)}
    callers = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [caller.wait(timeout=60) for caller in callers] == [0, 0, 0]
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == [
        "disk.img",
        "initrd",
        "kernel",
        "lock",
    ]
    assert not (real / "making").exists()

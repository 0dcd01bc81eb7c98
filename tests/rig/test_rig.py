"""The rig itself: what vm.py promises to its caller, and what the guest offers. Two boots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = [pytest.mark.needs("rig-host"), pytest.mark.timeout(650)]

HERE = Path(__file__).resolve().parent
CRASH = "sync; echo c >/proc/sysrq-trigger; sleep 60"


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
    done = vm(*options, "--", sys.executable, HERE / "look.py", NAMED="from here", PYTHONNOUSERSITE="1", UNNAMED="no")
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
    assert visit.facts["devices"]
    assert visit.facts["disk"] == "ext2/ext3"  # as stat(1) calls ext4 too
    assert visit.facts["overlay"] == "works"


def test_network(visit: Visit) -> None:
    assert "lo" in visit.facts["interfaces"]
    assert not [name for name in visit.facts["interfaces"] if name.startswith(("eth", "en"))]
    assert {"veth", "bridge", "nf_tables", "tun", "overlay", "dummy"} <= set(visit.facts["modules"])


def test_ordinary_user(visit: Visit) -> None:
    assert visit.facts["entry"] == "rig:x:1000:1000:rig:/home/rig:/bin/sh"
    assert visit.facts["ranges"].split() == ["rig:100000:65536"] * 2
    assert visit.facts["capabilities"].split() == ["CapEff:", "0" * 16]
    assert visit.facts["python"] == "1000"
    assert visit.facts["reads"] == (HERE / "look.py").read_text(encoding="utf-8").strip()
    assert visit.facts["userns"] == "0"


def test_a_guest_that_dies() -> None:
    done = vm("--", "sh", "-c", CRASH)
    assert done.returncode == 125
    assert "ended without a result" in done.stderr
    assert "Kernel panic" in done.stderr  # what the console said last


def test_timeout() -> None:
    done = vm("--timeout", "0.5", "--", "true")
    assert done.returncode == 124
    assert done.stderr == "rig: timeout after 0.5 s, before the command was started\n"


def test_a_command_that_has_stopped() -> None:
    done = vm("--silence", "15", "--", "sh", "-c", "sleep 5; echo said; sleep 1000")
    assert done.returncode == 124
    assert (done.stdout, done.stderr) == ("said\n", "rig: nothing was said for 15 s\n")


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
    for made in (real / "kernel", *real.glob("guests-*")):
        (tmp_path / made.name).symlink_to(made.absolute())
    (tmp_path / "making/kernel").mkdir(parents=True)
    command = [sys.executable, str(HERE / "vm.py"), "--prepare"]
    environment = {**os.environ, "MINICONTAINER_CACHE": str(tmp_path)}
    callers = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [caller.wait(timeout=60) for caller in callers] == [0, 0, 0]
    names = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
    assert names == {"disk.img", "guests", "initrd", "kernel", "lock"}
    assert not (real / "making").exists()

"""``minicontainer doctor`` as it is typed: on this host, in the rig, and after a container's owner was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from abilities import USER, USER_ID, as_user_prefix
from box import copy_of
from supplies import Run

from minicontainer import doctor, runtime
from minicontainer.container.cgroup import placement
from minicontainer.detached.container import Container
from minicontainer.linux.cgroup import Cgroup, hierarchy

pytestmark = pytest.mark.needs("root")

DOCTOR = [sys.executable, "-m", "minicontainer", "doctor", "--format", "json"]
SECTIONS = [
    "container",
    "namespaces",
    "namespaces of an ordinary user",
    "id ranges",
    "cgroups",
    "file systems",
    "capabilities",
    "networks",
    "KVM",
    "disturbs measurements",
    "left behind",
]

Data = dict[str, Any]


def parsed(done: subprocess.CompletedProcess[str], status: int = 0) -> Data:
    """The JSON that it printed."""
    assert (done.returncode, done.stderr) == (status, ""), done.stdout
    data: Data = json.loads(done.stdout)
    return data


def found(data: Data, section: str) -> dict[str, Data]:
    """The findings of a section by name."""
    return {finding["name"]: finding for finding in data["sections"][section]}


def statuses(data: Data, section: str) -> dict[str, str]:
    return {name: finding["status"] for name, finding in found(data, section).items()}


# ---- this host


def test_for_people(minicontainer_cli: Run) -> None:
    done = minicontainer_cli("doctor")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Linux {os.uname().release} on ")
    titles = [after for before, after in pairwise(lines) if not before]
    assert titles == SECTIONS
    told = [line for line in lines[1:] if line and line not in SECTIONS]
    assert {line.split()[0] for line in told} <= {"ok", "no", "note"}
    assert "  ok    default run             a container ran a program and was removed" in lines
    crashed = [line for line in told if "crashed" in line or "no answer" in line]
    assert crashed == []


@pytest.mark.needs("cgroup2", "overlay", "userns")
def test_for_programs(minicontainer_cli: Run, tmp_path: Path) -> None:
    data = parsed(minicontainer_cli("doctor", "--format", "json", tmp_path))
    assert list(data["sections"]) == SECTIONS
    assert data["usable"] is True
    assert set(statuses(data, "namespaces").values()) == {"ok"}
    assert statuses(data, "namespaces of an ordinary user")["user"] == "ok"
    works = statuses(data, "cgroups")
    assert {works[name] for name in ("CLONE_INTO_CGROUP", "cgroup.freeze", "cgroup.kill")} == {"ok"}
    assert found(data, "file systems")["overlay"]["detail"] == f"over {tmp_path}"
    for section in data["sections"].values():
        for finding in section:
            assert finding["status"] in ("ok", "no", "note")
            assert finding["detail"] or finding["status"] == "ok"


@pytest.mark.needs("cgroup2")
def test_controllers_are_told_where_they_are(minicontainer_cli: Run) -> None:
    told = found(parsed(minicontainer_cli("doctor", "--format", "json")), "cgroups")
    here = hierarchy().controllers
    for name in ("cpu", "cpuset", "io", "memory", "pids"):
        assert told[name]["status"] == ("ok" if name in here else "no")
        assert name in here or told[name]["remedy"]


def test_the_kind_of_kvm(minicontainer_cli: Run) -> None:
    from abilities import why_not

    told = found(parsed(minicontainer_cli("doctor", "--format", "json")), "KVM")
    assert (told["/dev/kvm"]["status"] == "ok") == (why_not("kvm") == "")
    if told["/dev/kvm"]["status"] == "ok":
        kind = "software" if why_not("kvm-hardware") else "hardware"
        assert told["kind"]["detail"].startswith(kind)


def test_a_rootfs_that_is_none(minicontainer_cli: Run) -> None:
    done = minicontainer_cli("doctor", "/nonexistent")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1
    assert "/nonexistent" in done.stderr


# ---- where something needed is missing


@pytest.mark.needs("userns")
def test_a_proc_that_is_partly_hidden(tmp_path: Path) -> None:
    """As in most containers: no proc for a pid namespace of one's own, so no run."""
    inner = "unshare --user --map-root-user --mount --pid --fork"  # what was mounted before cannot be uncovered there
    script = f'mount --bind /dev/null /proc/version && exec {inner} "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *DOCTOR]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    data = parsed(done, status=1)
    assert data["usable"] is False
    assert found(data, "file systems")["proc"]["detail"].startswith("refused, because parts of /proc are masked")
    assert found(data, "container")["default run"]["status"] == "no"


# ---- what was left behind


@contextmanager
def running(rootfs: Path, name: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A container that sleeps, run by a process of its own: that process, and the container's cgroup."""
    command = [sys.executable, "-m", "minicontainer", "run", "--name", name, str(rootfs), "/bin/sleep", "1000"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield process, wait_for(lambda: inhabited(process.pid), "its cgroup")
        finally:
            process.kill()


def inhabited(owner: int) -> str:
    """The cgroup of a container of that owner in which a program runs."""
    for path in Path(hierarchy().path, placement.parent_name()).glob(f"*-{runtime.mark()}"):
        for pid in (path / "cgroup.procs").read_text(encoding="ascii").split():
            if program(pid) == "sleep" and parent(pid) == owner:
                return str(path)
    return ""


def parent(pid: str) -> int:
    """0 where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def program(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def wait_for(something: Callable[[], str], what: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if result := something():
            return result
        time.sleep(0.01)
    pytest.fail(f"{what}: waited in vain")


def left_behind(data: Data) -> list[str]:
    return [finding["detail"] for finding in data["sections"]["left behind"] if finding["status"] == "note"]


@pytest.mark.needs("cgroup2")
def test_what_a_killed_owner_left_is_told_and_removed_and_a_live_ones_is_not(
    minicontainer_cli: Run, rootfs: Path
) -> None:
    with (
        running(rootfs, f"dead-{os.getpid()}") as (dead, dead_group),
        running(rootfs, f"live-{os.getpid()}") as (live, live_group),
    ):
        dead.kill()
        dead.wait()
        told = left_behind(parsed(minicontainer_cli("doctor", "--format", "json")))
        mine = [dead_group, f"{runtime.directory()}/names/dead-{os.getpid()}"]
        assert [path for path in told if path in mine] == mine
        assert live_group not in told

        data = parsed(minicontainer_cli("doctor", "--format", "json", "--clean"))
        removed = [finding["detail"] for finding in data["removed"]]
        assert any(f"{runtime.directory()}/containers/" in text for text in removed)  # with its cgroup and its name
        assert left_behind(data) == []
        assert not any(os.path.exists(path) for path in mine)

        assert live.poll() is None
        assert inhabited(live.pid) == live_group
        assert Path(f"{runtime.directory()}/names/live-{os.getpid()}").exists()
        live.kill()
        live.wait()
        assert f"removed {runtime.directory()}/containers/" in minicontainer_cli("doctor", "--clean").stdout
        assert not os.path.exists(live_group)


ELSEWHERE = {
    "another pid namespace": ["unshare", "--pid", "--fork", "--mount-proc"],
    "another state directory of the same path": [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
        'mount -t tmpfs -o mode=700 none "$MINICONTAINER_ROOT" && exec "$@"',
        "sh",
    ],
    "the default state directory": ["env", "--unset=MINICONTAINER_ROOT"],
}


@pytest.mark.needs("cgroup2")
@pytest.mark.parametrize("where", ELSEWHERE)
def test_who_cleans_elsewhere_ends_nothing_that_lives(rootfs: Path, make: Callable[..., Container], where: str) -> None:
    """Where pids are others, or what is known of these containers is not: whose they are is told by locks and marks."""
    detached = make("sleep", "1000", name=f"detached-{os.getpid()}")
    with running(rootfs, f"live-{os.getpid()}") as (live, group):
        done = subprocess.run(
            [*ELSEWHERE[where], *DOCTOR, "--clean"], capture_output=True, text=True, check=True, timeout=60
        )
        assert group not in done.stdout
        assert detached.id not in done.stdout
        assert detached.run(["true"]).returncode == 0
        assert (live.poll(), inhabited(live.pid)) == (None, group)
        live.kill()
        live.wait()
        doctor.clean(str(rootfs))
        assert not os.path.exists(group)


@pytest.mark.needs("cgroup2")
def test_a_lock_of_its_own_hides_no_container(rootfs: Path, tmp_path: Path) -> None:
    """On the directory of its cgroup, which it sees."""
    script = "flock -s /sys/fs/cgroup sh -c 'echo locked; exec sleep 1000'"
    util_linux = [word for path in ("/usr/bin/flock", "/lib", "/lib64") for word in ("-v", f"{path}:{path}:ro")]
    command = [
        sys.executable,
        "-m",
        "minicontainer",
        "run",
        *util_linux,
        str(copy_of(rootfs, tmp_path / "root")),
        "/bin/sh",
        "-c",
        script,
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        (group,) = Path(hierarchy().path, placement.parent_name()).glob(f"*-{runtime.mark()}")
        process.kill()
        process.wait()
    assert f"removed {group}" in [finding.verdict.detail for finding in doctor.clean(str(rootfs))]
    assert not group.exists()


# ---- the rig: all controllers on v2, an ordinary user, sysctls that may be set


@pytest.mark.needs("rig")
def test_all_controllers_in_the_rig(minicontainer_cli: Run) -> None:
    data = parsed(minicontainer_cli("doctor", "--format", "json"))
    assert set(statuses(data, "cgroups").values()) == {"ok"}
    assert found(data, "cgroups")["delegation"]["detail"] == "/sys/fs/cgroup: cpu cpuset io memory pids"


@pytest.mark.needs("rig")
def test_a_user_without_a_delegated_cgroup(as_user: Run) -> None:
    data = parsed(as_user(DOCTOR))
    assert "namespaces" not in data["sections"]
    ranges = found(data, "id ranges")
    for path in ("/etc/subuid", "/etc/subgid"):
        assert ranges[path]["detail"] == f"user {USER}: 65536 ids from 100000"
    assert ranges["writing maps"]["detail"] == "by newuidmap and newgidmap"
    told = found(data, "cgroups")
    assert told["memory"]["status"] == "ok"
    assert told["delegation"]["status"] == "no"
    assert told["delegation"]["detail"].endswith(f"is not delegated to user {USER_ID}")
    assert "systemd-run --user" in told["delegation"]["remedy"]
    assert set(statuses(data, "namespaces of an ordinary user").values()) == {"ok"}
    assert found(data, "container")["default run"]["status"] == "ok"


@pytest.mark.needs("rig")
def test_a_user_with_a_delegated_cgroup() -> None:
    with Cgroup.create(f"test-doctor-{os.getpid()}") as group:
        for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
            os.chown(f"{group.path}/{name}", USER_ID, USER_ID)
        start = f'echo 0 >"{group.path}/cgroup.procs"; exec "$@"'
        command = ["sh", "-c", start, "sh", *as_user_prefix(), *DOCTOR]
        data = parsed(subprocess.run(command, capture_output=True, text=True, check=False, timeout=60))
        assert not os.path.exists(f"{group.path}/minicontainer")
    told = found(data, "cgroups")
    assert told["delegation"]["detail"] == f"{group.path}: cpu cpuset io memory pids"
    assert {told[name]["status"] for name in ("CLONE_INTO_CGROUP", "cgroup.freeze", "cgroup.kill")} == {"ok"}


@pytest.fixture
def no_user_namespaces() -> Iterator[None]:
    path = Path("/proc/sys/user/max_user_namespaces")
    before = path.read_text(encoding="ascii")
    path.write_text("0", encoding="ascii")
    yield
    path.write_text(before, encoding="ascii")


@pytest.mark.needs("rig")
@pytest.mark.usefixtures("no_user_namespaces")
def test_user_namespaces_switched_off(minicontainer_cli: Run, as_user: Run) -> None:
    reason, remedy = "disabled by sysctl user.max_user_namespaces=0", "as root: sysctl user.max_user_namespaces=10000"
    data = parsed(minicontainer_cli("doctor", "--format", "json"))  # root can do without
    told = found(data, "namespaces of an ordinary user")
    for finding in (told["user"], told["net"], found(data, "namespaces")["user"]):
        assert (finding["status"], finding["detail"], finding["remedy"]) == ("no", reason, remedy)
    assert told["user.max_*_namespaces"]["detail"] == "user.max_user_namespaces=0"
    assert statuses(data, "namespaces")["net"] == "ok"
    run = found(data, "container")["default run"]
    assert run["status"] == "note"
    assert run["detail"].endswith(f"with less isolation: userns auto: {reason}; running as --userns host")

    data = parsed(as_user(DOCTOR), status=1)
    assert data["usable"] is False
    for section, name in (("container", "default run"), ("file systems", "overlay")):
        assert found(data, section)[name]["detail"] == reason
    last = as_user(DOCTOR[:-2]).stdout.splitlines()[-1]
    assert last.startswith("minicontainer run cannot work here: default run, ")

"""What exec gives is no more than what the container has: the same probe, started both ways, and both kinds of root."""

from __future__ import annotations

import fcntl
import shutil
import signal
from pathlib import Path

import pytest
from box import copy_of, until

import minicontainer as mc
from minicontainer.container.security import PROBE, outside, parse

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def probed(rootfs: Path, tmp_path: Path) -> Path:
    """A root file system that has the probe."""
    root = copy_of(rootfs, tmp_path / "root")
    shutil.copy(PROBE, root / "bin/probe")
    return root


def verdicts(text: str) -> dict[tuple[str, str], str]:
    return {(check.area, check.name): check.verdict for check in parse(text)}


@pytest.mark.parametrize("userns", ["private", "host"])
def test_what_exec_gives_is_no_more(probed: Path, userns: str) -> None:
    with outside() as words:
        args = ["/bin/probe", *words]
        own = mc.run(args, rootfs=str(probed), userns=userns, capture_output=True, text=True)
        c = mc.Container.start(["sleep", "1000"], rootfs=str(probed), userns=userns, remove=True)
        try:
            entered = c.run(args, capture_output=True, text=True, stdin=mc.DEVNULL)
        finally:
            c.stop(0)
    assert verdicts(own.stdout) == verdicts(entered.stdout)


def test_it_is_in_the_cgroup(rootfs: Path) -> None:
    c = mc.Container.start(["sleep", "1000"], rootfs=str(rootfs))
    try:
        with c.exec(["sleep", "1000"]) as entered, c.open_cgroup() as cgroup:  # type: ignore[union-attr]
            assert sorted(cgroup.procs) == sorted([c.pid, entered.pid])
            # execve(2) wakes who waits by vfork(2) before its arguments can be read
            until(lambda: [task.command for task in c.tasks()] == ["sleep 1000", "sleep 1000"])
            entered.kill()
    finally:
        c.remove(force=True)


def test_what_detached_gives_is_no_more(probed: Path) -> None:
    with outside() as words:
        args = ["/bin/probe", *words]
        own = mc.run(args, rootfs=str(probed), capture_output=True, text=True, stdin=mc.DEVNULL)
        c = mc.Container.start(args, rootfs=str(probed))
        try:
            c.wait(60)
            said = b"".join(entry.data for entry in c.logs() if entry.stream == "stdout").decode()
        finally:
            c.remove(force=True)
    assert verdicts(own.stdout) == verdicts(said)


def test_a_filter_of_a_file_is_kept(rootfs: Path, tmp_path: Path) -> None:
    """What enters, and another start, have it as it was, whatever became of the file."""
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    script = "mkdir /tmp/made-inside && echo made; sleep 1000"
    c = mc.Container.start(["sh", "-c", script], rootfs=str(rootfs), seccomp=str(profile))
    try:
        profile.unlink()
        entered = c.run(["mkdir", "/tmp/made-inside"], capture_output=True, stdin=mc.DEVNULL)
        assert entered.returncode == 1
        assert entered.stderr.endswith(b": Operation not permitted\n")

        def refused() -> list[object]:
            return [entry for entry in c.logs() if b"Operation not permitted" in entry.data]

        until(lambda: len(refused()) == 1)
        c.restart(0)
        until(lambda: len(refused()) == 2)
    finally:
        c.remove(force=True)


def test_names_are_looked_up_in_files_alone(rootfs: Path, tmp_path: Path) -> None:
    """Neither in what is the kernel's, whatever it reads like, nor in one of which somebody has a lease (fcntl(2)), for
    whose end it would be waited."""
    root = copy_of(rootfs, tmp_path / "root")
    passwd = root / "etc/passwd"
    script = "printf eve:x:7:7 > /proc/self/comm && exec >/dev/null; while :; do sleep 1000; done"
    c = mc.Container.start(["sh", "-c", script], rootfs=str(root), userns="host")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        until(lambda: Path(f"/proc/{c.pid}/comm").read_text() == "eve:x:7:7\n")
        passwd.unlink()
        passwd.symlink_to("/proc/1/comm")
        assert c.run(["cat", "/etc/passwd"], capture_output=True, text=True).stdout == "eve:x:7:7\n"
        with pytest.raises(mc.SpecError, match="eve"):
            c.run(["true"], user="eve")
        passwd.unlink()
        passwd.write_text("eve:x:7:7::/:\n")
        assert c.run(["id", "-u"], user="eve", capture_output=True, text=True).stdout == "7\n"
        with passwd.open("rb") as held:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(mc.UnsupportedError, match="/etc/passwd: a process holds a lease of it"):
                c.run(["true"], user="eve")
    finally:
        signal.signal(signal.SIGIO, before)
        c.remove(force=True)

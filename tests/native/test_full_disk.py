"""A state directory that is full: what cannot be told of is not started, and nothing of it is left; what runs is told
of."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from box import refusal, until
from supplies import Run

from minicontainer import runtime
from minicontainer.container.cgroup import placement
from minicontainer.detached.container import Container, containers
from minicontainer.errors import Error

pytestmark = pytest.mark.needs("root")

PAGE = os.sysconf("SC_PAGE_SIZE")


class Disk:
    """A small file system that holds the state directory; ``full`` leaves only so much of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.ballast = path, path / "ballast"

    @contextmanager
    def full(self, pages: int = 0, inodes: int | None = None) -> Iterator[None]:
        """With so many free pages, or inodes."""
        self.ballast.mkdir()
        room = os.statvfs(self.path)
        try:
            if inodes is None:
                with open(self.ballast / "pages", "wb", buffering=0) as f:
                    os.posix_fallocate(f.fileno(), 0, (room.f_bfree - pages) * PAGE)
            for i in range(0 if inodes is None else room.f_ffree - inodes):
                (self.ballast / str(i)).touch()
            yield
        finally:
            for file in self.ballast.iterdir():
                file.unlink()
            self.ballast.rmdir()

    def entries(self) -> list[str]:
        """What is in it of containers and names."""
        found = [path for part in ("containers", "names") for path in (self.path / part).rglob("*")]
        return sorted(str(path.relative_to(self.path)) for path in found)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    path = tmp_path / "state"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=100,mode=700", "none", path], check=True)
    monkeypatch.setenv(runtime.VARIABLE, str(path))
    monkeypatch.setattr(placement, "_home", None)
    try:
        yield Disk(path)
        for container in containers():
            container.remove(force=True)
    finally:
        home = placement.base().path + "/" + placement.parent_name()
        for place in (f"{home}/monitors", home):
            with suppress(OSError):
                os.rmdir(place)
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("what", ["pages", "inodes"])
def test_a_start_with_little_room(disk: Disk, rootfs: Path, minicontainer_cli: Run, what: str) -> None:
    """Whatever is missing, it is one or the other: started and told of, or refused with nothing left."""
    words = ["run", "-d", "--name", "x", "--rm", rootfs, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"]
    started = refused = 0
    for left in range(14):
        with disk.full(**{what: left}):
            done = minicontainer_cli(*words)
            if done.returncode:
                assert re.search(r"/.*: no space left on device", refusal(done).lower())
                refused += 1
            else:
                started += 1
                c = Container.find("x")
                assert c.status == "running"
                assert c.pid
                assert minicontainer_cli("ps", "-q").stdout.split() == [c.id[:12]]
                c.stop()
        assert disk.entries() == []
    assert started
    assert refused


def test_an_end_with_no_room(disk: Disk, rootfs: Path, minicontainer_cli: Run) -> None:
    c = Container.start(["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"], rootfs=str(rootfs))
    with disk.full():
        assert c.status == "running"
        assert minicontainer_cli("stop", c.id).returncode == 0
        assert (c.status, c.state.exit_code, c.wait(120)) == ("exited", 5, 5)
    with disk.full():
        assert "/state): No space left" in refusal(minicontainer_cli("start", c.id), code=1)
        assert (c.status, c.state.exit_code) == ("exited", 5)
    c.start_again()
    assert c.status == "running"


def has_restarted(c: Container, times: int) -> bool:
    return c.state.restarts == times and c.status == "running"


def test_restarts_with_no_room(disk: Disk, rootfs: Path) -> None:
    c = Container.start(["sleep", "1000"], rootfs=str(rootfs), restart="always")
    with disk.full():
        for n in (1, 2, 3):
            os.kill(c.pid, 9)
            until(partial(has_restarted, c, n))
        assert c.run(["true"]).returncode == 0
        c.stop(0)
        assert c.status == "exited"


def test_changes_with_no_room(disk: Disk, rootfs: Path, minicontainer_cli: Run) -> None:
    """Are refused, and then it is as it was."""
    c = Container.start(["sleep", "1000"], rootfs=str(rootfs), name="x")
    before = disk.entries()
    for left in range(3):
        with disk.full(left):
            for words in (["rename", "x", "y"], ["update", "--restart", "always", "x"]):
                done = minicontainer_cli(*words)
                if done.returncode:
                    assert "no space left on device" in refusal(done, code=done.returncode).lower()
                    assert disk.entries() == before
                else:
                    c.rename("x")
                    c.update(restart="no")
            assert Container(c.id).name == "x"
            assert Container.find("x").status == "running"


def test_removal_with_no_room(disk: Disk, rootfs: Path) -> None:
    c = Container.start(["sleep", "1000"], rootfs=str(rootfs), name="x")
    with disk.full():
        c.remove(force=True)
    assert disk.entries() == []
    with pytest.raises(Error):
        Container.find("x")


def test_a_start_in_the_foreground_with_little_room(disk: Disk, rootfs: Path, minicontainer_cli: Run) -> None:
    """What could not be told of has not run."""
    ran = refused = 0
    for left in range(8):
        with disk.full(left):
            done = minicontainer_cli("run", "--name", "x", rootfs, "echo", "ran")
            if done.returncode:
                assert re.search(r"/.*: no space left on device", refusal(done).lower())
                refused += 1
            else:
                assert done.stdout == "ran\n"
                ran += 1
        assert disk.entries() == []
    assert ran
    assert refused


@pytest.mark.parametrize("what", ["volume", pytest.param("network", marks=pytest.mark.needs("bridge"))])
def test_what_is_made_with_no_room(disk: Disk, minicontainer_cli: Run, what: str) -> None:
    """Is told by name, and made whole when there is room again."""
    assert minicontainer_cli(what, "create", "first").returncode == 0
    with disk.full():
        assert re.search(r"/.*: no space left on device", refusal(minicontainer_cli(what, "create", "x")).lower())
    assert minicontainer_cli(what, "ls", "-q").stdout.split() == ["first"]
    assert minicontainer_cli(what, "create", "x").returncode == 0
    if what == "network":
        assert "127.0.0.1\tlocalhost\n" in (disk.path / "networks/x/hosts/names").read_text(encoding="ascii")
    for name in ("first", "x"):
        assert minicontainer_cli(what, "rm", name).returncode == 0


@pytest.mark.needs("bridge")
def test_no_names_are_left_of_a_start_with_little_room(disk: Disk, rootfs: Path, minicontainer_cli: Run) -> None:
    assert minicontainer_cli("network", "create", "x").returncode == 0
    names, refused = disk.path / "networks/x/hosts/names", 0
    for left in range(8):
        with disk.full(left):
            done = minicontainer_cli("run", "--network", "x", "--add-host", "y=192.0.2.1", rootfs, "true")
            if done.returncode:
                assert re.search(r"/.*: no space left on device", refusal(done).lower())
                refused += 1
        lines = [line.split()[0] for line in names.read_text(encoding="ascii").splitlines() if line.strip()]
        assert [line for line in lines if not line.startswith("#")] == ["127.0.0.1", "::1"]
        assert os.listdir(disk.path / "networks/x/leases") == []
    assert refused
    assert minicontainer_cli("network", "rm", "x").returncode == 0

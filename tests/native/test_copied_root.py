"""A copy of a state directory has the same files, and none of the locks: what it names is the other's, and lives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from box import CLI, chosen, until

from minicontainer import runtime
from minicontainer.container.cgroup import placement
from minicontainer.detached.container import Container
from minicontainer.linux import nftables
from minicontainer.network import bridge, firewall, networks

pytestmark = pytest.mark.needs("root")

NAME = "test-copied"


class Copied:
    """A copy of this process's state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        subprocess.run(["cp", "-a", runtime.directory(), self.path], check=True)

    def cli(self, *words: str | Path, own_pids: bool = False) -> subprocess.CompletedProcess[str]:
        """The command line over it; with ``own_pids`` where the processes of the other are not seen."""
        fresh = ["unshare", "--pid", "--fork", "--mount-proc"] if own_pids else []
        command = [*fresh, *CLI, "--root", str(self.path), *map(str, words)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
        )

    def clean(self) -> None:
        """``doctor --clean`` has nothing to say that it could not do."""
        for own_pids in (True, False):
            done = self.cli("doctor", "--clean", "--format", "json", own_pids=own_pids)
            removed = json.loads(done.stdout)["removed"]
            assert [finding for finding in removed if finding["status"] != "ok"] == []


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Copied]:
    found = Copied(tmp_path / "copy")
    yield found
    with chosen(found.path), suppress(FileNotFoundError):
        home = f"{placement.base().path}/{placement.parent_name()}"
        for place in (f"{home}/monitors", home):
            os.rmdir(place)


@pytest.mark.parametrize("own_pids", [False, True])
def test_no_command_over_it_ends_a_container(make: Any, copied: Copied, own_pids: bool) -> None:
    c = make("sleep", "1000", name="lives")
    copied.make()
    before = c.state.process
    for words in (["ps", "-a"], ["inspect", c.id], ["stop", c.id], ["rm", "-f", c.id], ["ps", "-aq"]):
        done = copied.cli(*words, own_pids=own_pids)
        assert (done.returncode, done.stderr) == (0, "")
        assert c.status == "running"
        assert c.state.process == before
    assert done.stdout == ""


def test_the_doctor_cleans_nothing_of_the_other(make: Any, copied: Copied) -> None:
    containers = [make("sleep", "1000", name=f"lives{i}") for i in range(2)]
    copied.make()
    containers.append(make("sleep", "1000"))  # that it does not know
    before = [c.state.process for c in containers]
    copied.clean()
    assert [c.state.process for c in containers] == before
    assert [c.status for c in containers] == ["running"] * 3
    assert os.listdir(copied.path / "containers") == []


def test_the_doctor_of_its_own_cleans_what_is_stale(make: Any, copied: Copied, minicontainer_cli: Any) -> None:
    c = make("sleep", "1000")
    copied.make()
    monitor, cgroup = c.state.monitor, os.readlink(f"{c.directory}/cgroup")
    os.kill(monitor.pid, 9)
    until(lambda: not monitor.is_alive())
    copied.clean()
    assert os.path.isdir(cgroup)
    minicontainer_cli("doctor", "--clean")
    assert not os.path.exists(cgroup)
    assert not os.path.exists(c.directory)


def test_one_that_is_started_over_it_is_its_own(make: Any, copied: Copied) -> None:
    c = make("sleep", "1000")
    copied.make()
    before = c.state.process
    assert copied.cli("start", c.id).returncode == 0
    with chosen(copied.path):
        other = Container.find(c.id)
        assert other.status == "running"
        assert other.state.process != before
        cgroup = os.readlink(f"{other.directory}/cgroup")
        assert cgroup != os.readlink(f"{c.directory}/cgroup")
        other.remove(force=True)
        assert not os.path.exists(cgroup)
    assert (c.status, c.state.process) == ("running", before)


def test_one_that_moved_is_what_it_was(rootfs: Path, tmp_path: Path, minicontainer_cli: Any) -> None:
    first, moved = tmp_path / "first", Copied(tmp_path / "moved")
    assert minicontainer_cli("--root", first, "run", "-d", "--name", "lives", rootfs, "sleep", "1000").returncode == 0
    first.rename(moved.path)
    assert moved.cli("ps", "--format", "{{.Names}}").stdout == "lives\n"
    moved.clean()
    with chosen(moved.path):
        c = Container.find("lives")
        assert c.status == "running"
        cgroup = os.readlink(f"{c.directory}/cgroup")
        os.kill(c.state.monitor.pid, 9)  # type: ignore[union-attr]
        until(lambda: c.status == "dead")
        moved.clean()
        assert not os.path.exists(cgroup)
        home = f"{placement.base().path}/{placement.parent_name()}"
        for place in (f"{home}/monitors", home):
            os.rmdir(place)


def said_at(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            return s.recv(10)
    except OSError:
        return b""


@pytest.mark.needs("bridge")
def test_its_networks_are_the_other_s(make: Any, copied: Copied, rootfs: Path) -> None:
    network = networks.create(NAME, subnet="10.213.78.0/29")
    c = make("sh", "-c", "while :; do echo hi | nc -l -p 80; done", network=NAME, ip="10.213.78.2", ports=["8078:80"])
    try:
        copied.make()
        assert until(lambda: said_at(8078)) == b"hi\n"
        later = networks.create(f"{NAME}-2")
        leases = os.listdir(f"{runtime.directory()}/networks/{NAME}/leases")
        table = nftables.run(f"list table inet {firewall.table()}")
        copied.clean()
        done = copied.cli("run", "--rm", "--network", NAME, rootfs, "true")
        assert done.returncode == 125
        assert "is of another state directory, and 10.213.78.0/29 overlaps" in done.stderr
        assert copied.cli("network", "rm", NAME).returncode == 0
        assert set(bridge.interfaces()) == {network.interface, later.interface}
        assert sorted(firewall.bridges()) == sorted((network.interface, later.interface))
        assert nftables.run(f"list table inet {firewall.table()}") == table
        assert os.listdir(f"{runtime.directory()}/networks/{NAME}/leases") == leases == ["10.213.78.2"]
        assert until(lambda: said_at(8078)) == b"hi\n"
    finally:
        c.remove(force=True)
        for name in (NAME, f"{NAME}-2"):
            networks.remove(name)


@pytest.mark.needs("bridge")
def test_its_network_is_made_again_where_the_other_is_gone(copied: Copied, rootfs: Path) -> None:
    """As in one that was restored on another host."""
    network = networks.create(NAME, subnet="10.213.79.0/29")
    try:
        copied.make()
    finally:
        networks.remove(NAME)
    done = copied.cli("run", "--rm", "--network", NAME, rootfs, "ip", "-4", "addr", "show", "eth0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "10.213.79." in done.stdout
    with chosen(copied.path):
        assert network.interface not in bridge.interfaces()
        assert bridge.interfaces() == [bridge.interface_of(NAME)]
        networks.remove(NAME)
        assert bridge.interfaces() == []

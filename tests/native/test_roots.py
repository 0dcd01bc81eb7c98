"""Several state directories on one host: what belongs to one is nothing to the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import CLI, chosen

from minicontainer import runtime
from minicontainer.linux.cgroup import hierarchy
from minicontainer.network import bridge, firewall, networks, store

pytestmark = pytest.mark.needs("root")


def cli(*words: str | Path, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, with another state directory where one is given: by the option, which goes before the rest."""
    given = [] if root is None else ["--root", str(root)]
    command = [*CLI, *given, *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """Another state directory; at the end nothing is left of it outside."""
    path = tmp_path / "other"
    yield path
    with chosen(path):
        home = Path(hierarchy().path, f"minicontainer{runtime.suffix()}")
        for group in (home / "monitors", home):
            if group.is_dir():
                group.rmdir()


@pytest.mark.needs("cgroup2")
def test_each_lists_and_keeps_its_own(rootfs: Path, other: Path) -> None:
    here = cli("run", "-d", "--name", "same", rootfs, "sleep", "1000").stdout.strip()
    there = cli("run", "-d", "--name", "same", rootfs, "sleep", "1000", root=other).stdout.strip()
    assert here
    assert there
    assert cli("ps", "-q").stdout.split() == [here[:12]]
    assert cli("ps", "-q", root=other).stdout.split() == [there[:12]]
    (group,) = Path(hierarchy().path).glob(f"*/{there[:12]}-*")
    with chosen(other):
        assert group.parent.name == f"minicontainer-{runtime.mark()}"
    assert cli("rm", "-f", "same", root=other).returncode == 0
    assert cli("ps", "-q").stdout.split() == [here[:12]]
    assert cli("rm", "-f", "same").returncode == 0


@pytest.mark.needs("bridge")
def test_each_has_networks_of_its_own(other: Path) -> None:
    mine = networks.create("same")
    try:
        assert cli("network", "create", "same", root=other).returncode == 0
        with chosen(other):
            others = store.read("same")
            assert others.interface != mine.interface
            assert others.subnet != mine.subnet
            assert others.subnet6 is None or others.subnet6 != mine.subnet6
            assert (firewall.exists(), firewall.bridges()) == (True, [others.interface])
            assert networks.left_behind() == []
        assert networks.left_behind() == []
        assert set(bridge.interfaces(others=True)) >= {others.interface, mine.interface}
        forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii")
        assert cli("network", "rm", "same", root=other).returncode == 0
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii") == forwarding
        assert bridge.interfaces() == [mine.interface]
    finally:
        networks.remove("same")


def test_a_root_that_is_none(other: Path) -> None:
    done = cli("--root", "", "ps")
    assert (done.returncode, done.stderr) == (125, "minicontainer: root '': is empty\n")
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    done = cli("ps", root=other)
    assert done.returncode == 125
    assert done.stderr.startswith(f"minicontainer: MINICONTAINER_ROOT {other}: others can write there")
    other.chmod(0o700)

"""Whatever dies or is taken away while networks are made, joined and left: a clear error, and nothing stays."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import Box, python, python_options, until
from failing import broken, refused
from packets import ask, server

import minicontainer as mc
from minicontainer import doctor
from minicontainer.container import compilation
from minicontainer.detached import store as containers
from minicontainer.linux import nftables
from minicontainer.network import bridge, firewall, members, networks, release, store
from minicontainer.network.record import Network
from minicontainer.plan.spawn import ParentPlan

pytestmark = pytest.mark.needs("root", "bridge")

ROOT = Path(__file__).resolve().parents[2]
NAME = "test-net"
Make = Callable[..., mc.Container]


def points() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "minicontainer/network").rglob("*.py"))]
    return sorted({name for text in texts for name in re.findall(r'failpoint\("([a-z ]+)"\)', text)})


LIFE = """
import sys
import minicontainer as mc
from minicontainer.network import networks
networks.create("test-net")
c = mc.Container.start(["sleep", "1000"], rootfs=sys.argv[1], name="fault", network="test-net",
                       ports=mc.Port.option("80-89") + mc.Port.option("127.0.0.1::80"), add_hosts={"a": "192.0.2.1"})
c.remove(force=True)
networks.remove("test-net")
"""


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, no bridge, no table."""
    monkeypatch.setattr(containers, "LOCK_GRACE", 0.0)
    yield
    for name in store.names():
        networks.remove(name)
    listed = nftables.run("list tables").get("nftables", ())
    assert firewall.table() not in [item["table"]["name"] for item in listed if "table" in item]
    assert networks.left_behind() == []
    assert bridge.number(bridge.interface_of(NAME)) == 0


def dies_at(point: str, rootfs: Path) -> int:
    env = {**os.environ, "MINICONTAINER_FAILPOINT": point}
    command = [sys.executable, "-c", LIFE, str(rootfs)]
    return subprocess.run(command, env=env, check=False, capture_output=True, timeout=60).returncode


def clean() -> None:
    found = doctor.clean(".")
    assert [finding for finding in found if finding.verdict.status == "no"] == []
    for container in mc.containers():
        if container.name == "fault":
            container.remove(force=True)


def check_nothing_is_left() -> None:
    """Of leases, names and published ports, where the network is whole; of it all, where it is not."""
    assert members.dead() == []
    assert networks.left_behind() == []
    for name in store.names():
        assert members.of(name) == []
        lines = Path(store.path(name, "hosts", "names")).read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line[:1] != "#" and "localhost" not in line] == []
        assert os.listdir(store.path(name, "hosts")) == ["names"]
        for map_ in ("published", "published_at"):
            listed = json.dumps(nftables.run(f"list map inet {firewall.table()} {map_}"))
            assert '"elem"' not in listed


@pytest.mark.parametrize("point", points())
def test_the_manager_dies(rootfs: Path, point: str) -> None:
    assert dies_at(f"manager:{point}", rootfs) == -9, f"{point} was not come to"
    clean()
    check_nothing_is_left()


@pytest.mark.parametrize("point", ["cgroup linked", "lease linked", "memfd filled", "monitor made", "started"])
def test_the_manager_dies_with_a_lease(rootfs: Path, point: str) -> None:
    assert dies_at(f"manager:{point}", rootfs) == -9
    until(lambda: not any(c._entry.is_locked() for c in mc.containers()))
    clean()
    check_nothing_is_left()


@pytest.mark.parametrize("point", ["entry", "started", "killed", "ids released", "network left", "exited"])
def test_the_monitor_dies(rootfs: Path, point: str) -> None:
    dies_at(f"monitor:{point}", rootfs)
    clean()
    check_nothing_is_left()


def test_the_owner_of_a_foreground_container_dies(rootfs: Path) -> None:
    """Its address and port are free for the next one, without a clean-up."""
    networks.create(NAME, subnet="10.9.8.0/30")
    script = (
        "import os, minicontainer as mc\n"
        f"mc.Popen(['sleep', '1000'], rootfs={str(rootfs)!r}, network={NAME!r}, die_with_parent=True,"
        " ports=mc.Port.option('18080:80'))\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    (dead,) = members.dead()
    assert dead == store.path(NAME, "leases", "10.9.8.2")
    with mc.Popen(["sleep", "1000"], rootfs=rootfs, network=NAME, ports=mc.Port.option("18080:80")) as next_:
        with server(next_.pid, 80):
            assert ask("127.0.0.1", 18080) == b"word"
        next_.kill()
    clean()


def test_the_bridge_is_taken_away(make: Make) -> None:
    networks.create(NAME)
    first = make("sleep", "1000", network=NAME)
    bridge.remove(bridge.interface_of(NAME))
    second = make("sleep", "1000", network=NAME, ports=mc.Port.option("80"))
    lease = second.lease()
    assert lease is not None
    with server(second.pid, 80):
        assert ask("127.0.0.1", lease.ports[0].host) == b"word"
    first.remove(force=True)


def test_the_table_is_taken_away(make: Make) -> None:
    table = firewall.table()
    networks.create(NAME)
    first = make("sleep", "1000", network=NAME, ports=mc.Port.option("80"))
    nftables.run(f"delete table inet {table}")
    second = make("sleep", "1000", network=NAME, ports=mc.Port.option("80"))
    for container in (first, second):
        lease = container.lease()
        assert lease is not None
        with server(container.pid, 80):
            assert ask("127.0.0.1", lease.ports[0].host) == b"word"
    nftables.run(f"delete table inet {table}")
    first.remove(force=True)
    second.remove(force=True)
    assert members.of(NAME) == []


def test_nftables_fails_in_the_middle(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise nftables.NftablesError("nftables: No buffer space available")

    monkeypatch.setattr("minicontainer.network.firewall.load", fails)
    with pytest.raises(mc.Error, match="No buffer space available"):
        networks.create(NAME)
    monkeypatch.undo()
    clean()
    assert store.names() == []


def test_publishing_fails(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the publishing, and the address is free again."""
    networks.create(NAME)

    def fails(*_: object) -> None:
        raise mc.StepError(errno.ENOBUFS, "netlink({NFT_MSG_NEWSETELEM})")

    monkeypatch.setattr("minicontainer.network.leases._publish", fails)
    with pytest.raises(mc.StepError, match="No buffer space"):
        mc.run(["true"], rootfs=rootfs, network=NAME, ports=mc.Port.option("80"))
    monkeypatch.undo()
    check_nothing_is_left()


def test_netlink_fails_in_the_middle(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bridge is there, though it was a moment ago."""
    network = networks.create(NAME)
    monkeypatch.setattr(networks, "ensure", lambda _: network)
    bridge.remove(network.interface)
    with pytest.raises(mc.StepError, match=r"RTM_NEWLINK veth.*the bridge has been removed"):
        mc.run(["true"], rootfs=rootfs, network=NAME, ports=mc.Port.option("80"))
    monkeypatch.undo()
    networks.repair(NAME)
    check_nothing_is_left()


@pytest.mark.parametrize("name", [NAME, "bridge"])
def test_two_make_one_network(rootfs: Path, name: str) -> None:
    """By name one is refused; the default one is made by whoever comes first."""
    act = "networks.create" if name == NAME else "networks.ensure"
    script = f"import sys\nfrom minicontainer.network import networks\nsys.stdin.read(1)\n{act}({name!r})"
    pipe = subprocess.PIPE
    makers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stderr=pipe, stdout=pipe, text=True)
        for _ in range(4)
    ]
    said = []
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()
        maker.stdin = None
    for maker in makers:
        said.append(maker.communicate()[1])
    assert [maker.returncode for maker in makers].count(0) == (1 if name == NAME else 4), said
    assert sum("already exists" in text for text in said) == (3 if name == NAME else 0)


def test_a_file_that_cannot_be_read(box: Box) -> None:
    networks.create(NAME)
    path = Path(store.path(NAME, "config.json"))
    whole = path.read_text(encoding="utf-8")
    for text in ("", "{}", "[1]", whole[: len(whole) // 2], whole.replace('"version": 1', '"version": 99')):
        path.write_text(text, encoding="utf-8")
        box.refused("true", options=["--network", NAME], says=["config.json"])
    path.write_text(whole, encoding="utf-8")


def test_a_lease_that_cannot_be_read(rootfs: Path) -> None:
    """It was being made by who was killed."""
    networks.create(NAME, subnet="10.9.8.0/30")
    Path(store.path(NAME, "leases", "10.9.8.2")).write_text("{", encoding="utf-8")
    assert mc.run(["true"], rootfs=rootfs, network=NAME).returncode == 0
    assert release.release_dead(store.path(NAME, "leases", "10.9.8.2")) is False


LEASING = """
import fcntl, os, time
for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
    for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK):
        try:
            fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, kind)
            print(path, "taken", flush=True)
        except BlockingIOError:
            print(path, "refused", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("add_hosts", [{}, {"elsewhere": "192.0.2.1"}], ids=["shared", "own"])
def test_no_lease_is_to_be_had_of_a_hosts_file(make: Make, network: Network, add_hosts: dict[str, str]) -> None:
    """Else whoever starts or ends beside a container that has the host's ids would wait for that (F_SETLEASE)."""
    options: dict[str, Any] = {"userns": "host", "mounts": python_mounts(), "add_hosts": add_hosts}
    web = make(python(), "-c", LEASING, network=NAME, **options)
    until(lambda: web_said(web).count("\n") == 6)
    assert [line for line in web_said(web).splitlines() if "hosts" in line] == ["/etc/hosts refused"] * 2
    make("true", network=NAME, add_hosts=add_hosts).wait()
    web.remove(force=True)
    check_nothing_is_left()


@pytest.mark.parametrize("kind", [fcntl.F_RDLCK, fcntl.F_WRLCK], ids=["read", "write"])
def test_a_lease_of_a_time_when_nobody_was_on_the_network(make: Make, network: Network, kind: int) -> None:
    """Its holder has got the file from one who was, and has outlived that: the file is another then."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    web = make("sleep", "1000", name="web", network=NAME)
    with open(f"/proc/{web.pid}/root/etc/hosts", "rb") as kept:
        web.remove(force=True)
        fcntl.fcntl(kept, fcntl.F_SETLEASE, kind)
        other = make("sleep", "1000", name="other", network=NAME)
        assert "other" in other.run(["cat", "/etc/hosts"], capture_output=True, text=True).stdout
        assert os.fstat(kept.fileno()).st_nlink == 0
        other.remove(force=True)
    signal.signal(signal.SIGIO, before)
    check_nothing_is_left()


def python_mounts() -> list[mc.Mount]:
    """What ``python`` needs, as volumes."""
    return [mc.Mount(word.split(":")[1], word.split(":")[0], readonly=True) for word in python_options() if ":" in word]


def web_said(container: mc.Container) -> str:
    return b"".join(entry.data for entry in container.logs()).decode()


@pytest.mark.parametrize("detached", [False, True], ids=["foreground", "detached"])
@pytest.mark.parametrize("userns", ["private", "host"])
def test_each_step_of_a_start_on_a_network(
    rootfs: Path, monkeypatch: pytest.MonkeyPatch, userns: str, detached: bool
) -> None:
    networks.create(NAME)
    spec = mc.Spec(["true"], rootfs=str(rootfs), network=NAME, userns=userns, ports=mc.Port.option("80"))
    whole = compilation.compile_spec(spec)
    assert whole.parent_plan is not None
    for index, step in enumerate(whole.plan.steps):
        if step.phase in ("network", "/etc") and errno.ENOMEM not in step.tolerate:
            plan = broken(whole.plan, index, errno.ENOMEM)
            what = whole._replace(plan=plan, parent_plan=ParentPlan(whole.parent_plan.plan, plan))
            refused(spec, detached, what, plan.steps[index], monkeypatch)
    for index, step in enumerate(whole.parent_plan.plan.steps):
        if step.phase == "network":
            parent_plan = ParentPlan(broken(whole.parent_plan.plan, index, errno.ENOMEM), whole.plan)
            refused(spec, detached, whole._replace(parent_plan=parent_plan), parent_plan.plan.steps[index], monkeypatch)
    monkeypatch.undo()
    check_nothing_is_left()


def test_a_file_that_is_no_lease_is_left_out(network: Network) -> None:
    Path(store.path(network.name, "leases", "notes.txt")).write_text("mine", encoding="utf-8")
    try:
        assert members.of(network.name) == []
        assert members.dead() == []
        release.reclaim(network.name)
    finally:
        os.unlink(store.path(network.name, "leases", "notes.txt"))

"""Fixtures of the native tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import Box, Operator, copy_of, until
from supplies import Run

from minicontainer.detached.container import Container
from minicontainer.linux import nftables
from minicontainer.network import firewall, networks, store
from minicontainer.network.record import Network


@pytest.fixture(scope="session")
def box(minicontainer_cli: Run, rootfs: Path) -> Box:
    """Runs containers with the shared root file system, which tests must not change."""
    return Box(minicontainer_cli, rootfs)


@pytest.fixture
def own_box(minicontainer_cli: Run, rootfs: Path, tmp_path: Path) -> Box:
    """Runs containers with a root file system that the test may change."""
    return Box(minicontainer_cli, copy_of(rootfs, tmp_path / "root"))


@pytest.fixture
def make(rootfs: Path) -> Iterator[Callable[..., Container]]:
    """Starts detached containers that are removed at the end."""
    made: list[Container] = []

    def start(*args: str, **options: Any) -> Container:
        made.append(Container.start(args, **{"rootfs": str(rootfs), **options}))
        return made[-1]

    yield start
    for container in made:
        if os.path.isdir(container.directory):
            container.remove(force=True)


@pytest.fixture
def op(minicontainer_cli: Run, rootfs: Path) -> Iterator[Operator]:
    operator = Operator(minicontainer_cli, rootfs)
    yield operator
    minicontainer_cli("rm", "-f", *operator.ids) if operator.ids else None


# ---- networks


def forwarding() -> list[str]:
    return [Path(f"/proc/sys/net/{name}").read_text() for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]


def tables() -> list[str]:
    listed = nftables.run("list tables").get("nftables", ())
    return [item["table"]["name"] for item in listed if "table" in item]


@pytest.fixture
def no_network_stays() -> Iterator[None]:
    """After the last network is removed: no table, no directory, the host as it was."""
    before = forwarding()
    yield
    for name in store.names():
        networks.remove(name)
    assert store.names() == []
    assert firewall.table() not in tables()
    assert forwarding() == before


@pytest.fixture
def network() -> Network:
    """A network for the test."""
    return networks.create("test-net")


@pytest.fixture
def on(make: Callable[..., Container], network: Network) -> Callable[..., Container]:
    """Starts a container on the network that waits."""
    return lambda name, **options: make("sleep", "1000", name=name, **{"network": network.name, **options})


@pytest.fixture
def outside(network: Network) -> Iterator[subprocess.Popen[bytes]]:
    """An external host, 198.51.100.2, in a network namespace; this host is 198.51.100.1."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as other:
        try:
            until(lambda: os.readlink(f"/proc/{other.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
            for words in (
                f"link add test-out type veth peer name out netns {other.pid}",
                "addr add 198.51.100.1/24 dev test-out",
                "link set test-out up",
            ):
                subprocess.run(["ip", *words.split()], check=True)
            for words in ("link set out up", "link set lo up", "addr add 198.51.100.2/24 dev out"):
                subprocess.run(["nsenter", f"--net=/proc/{other.pid}/ns/net", "ip", *words.split()], check=True)
            yield other
        finally:
            other.kill()

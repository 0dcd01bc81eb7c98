"""``--isolation kvm --network``: a guest on a bridge with a container, and that of an ordinary user.

A start takes many seconds: there is one for each of the two."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from abilities import as_user_prefix
from box import CLI, until
from test_machine import tree

import minicontainer as mc
from minicontainer.network import networks
from minicontainer.network.record import Network

pytestmark = [pytest.mark.needs("rig", "kvm-hardware", "bridge", "tun", "user"), pytest.mark.timeout(300)]

SIZE = 3_000_000
ASKED = """
cat /etc/hostname; grep -c nameserver /etc/resolv.conf; cat /sys/class/net/eth0/address
ping -c2 -W9 web >/dev/null && echo IPv4
ping -6 -c2 -W9 web >/dev/null && echo IPv6
ping -c1 -W9 db >/dev/null && echo added
wget -qO /tmp/data http://web/data && md5sum /tmp/data
echo up
exec httpd -f -p 80 -h /tmp
"""


@pytest.fixture
def network() -> Iterator[Network]:
    yield networks.create("rig-net", ipv6=True)
    networks.remove("rig-net")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file in a directory of its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data").write_bytes(os.urandom(SIZE))
    return tmp_path / "data" / "data"


def digest(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def fetched(where: str) -> bytes:
    """What a web server of a guest has as ``data``."""
    return subprocess.run(["busybox", "wget", "-qO-", f"http://{where}/data"], capture_output=True, check=False).stdout


def has(where: str, wanted: str) -> bool:
    return digest(fetched(where)) == wanted


def test_a_guest_and_a_container_on_a_bridge(rootfs: Path, tmp_path: Path, data: Path, network: Network) -> None:
    """By name and by both protocols, in both directions, with segments that are longer than the MTU; from the host."""
    common: dict[str, Any] = {
        "rootfs": str(rootfs),
        "network": "rig-net",
        "cap_add": ("NET_RAW",),
    }  # for busybox's ping
    served = [mc.Mount("/data", str(data.parent))]
    web = mc.Container.start(["httpd", "-f", "-p", "80", "-h", "/data"], name="web", mounts=served, **common)
    address = web.lease().address  # type: ignore[union-attr]
    guest = mc.Container.start(
        ["sh", "-c", ASKED], name="guest", isolation="kvm", kernel=tree(tmp_path, "vmlinuz"), read_only=True,
        mounts=[mc.Mount("/tmp", type="tmpfs")], mac_address="02:00:00:00:00:4d", dns=("192.0.2.53",),
        add_hosts={"db": str(address)}, ports=mc.Port.option("80"), **common,
    )  # fmt: skip
    try:
        until(lambda: said(guest).endswith("up\n"), 200)
        wanted = digest(data.read_bytes())
        words = ["guest", "1", "02:00:00:00:00:4d", "IPv4", "IPv6", "added", f"{wanted}  /tmp/data", "up"]
        assert said(guest).splitlines() == words
        lease = guest.lease()
        assert lease is not None
        for where in (f"127.0.0.1:{lease.ports[0].host}", str(lease.address), f"[{lease.six}]"):
            until(partial(has, where, wanted), 60)
        command = ["sh", "-c", "wget -qO- http://guest/data | md5sum"]
        assert web.run(command, capture_output=True, text=True).stdout.split()[0] == wanted
    finally:
        guest.remove(force=True)
        web.remove(force=True)


def said(container: mc.Container) -> str:
    return b"".join(entry.data for entry in container.logs()).decode()


USERS = """
wget -qO /tmp/data http://198.51.100.1:18081/data && echo fetched
ip route | head -n 1
echo up
httpd -p 80 -h /tmp
read line
"""


def test_the_guest_of_an_ordinary_user(rootfs: Path, tmp_path: Path, data: Path) -> None:
    """By slirp4netns: a way out, and a published port."""
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o055)
    kernel = tree(tmp_path, "vmlinuz")
    for words in ("link add test-out type dummy", "addr add 198.51.100.1/24 dev test-out", "link set test-out up"):
        subprocess.run(["ip", *words.split()], check=True)
    command = [*as_user_prefix(), "env", "HOME=/home/rig", *CLI, "run", "--isolation", "kvm", "--kernel", kernel]
    command += ["--ephemeral", "--tmpfs", "/tmp", "-p", "127.0.0.1:18080:80", str(rootfs), "sh", "-c", USERS]
    server = subprocess.Popen(["busybox", "httpd", "-f", "-p", "198.51.100.1:18081", "-h", str(data.parent)])
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(3)]
            assert lines == ["fetched", "default via 10.0.2.2 dev eth0", "up"], process.communicate("\n")
            until(lambda: fetched("127.0.0.1:18080") == data.read_bytes(), 60)
            _, errors = process.communicate("\n", timeout=60)
            assert (process.returncode, errors) == (0, "")
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "link", "del", "test-out"], check=True)

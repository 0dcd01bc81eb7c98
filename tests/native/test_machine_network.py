"""A machine on a network, with real packets: the outer plan and the network device are the true ones, and behind them
is a driver that answers (fakenet.c), in place of a guest. tests/rig/test_machine_on_network.py has the whole."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from packets import ask, inside, is_reached

import minicontainer as mc
from minicontainer.container.machine import start
from minicontainer.linux.files import sealed_memfd
from minicontainer.microvm.devices import NETWORK
from minicontainer.native import lib
from minicontainer.network.record import Network

pytestmark = [pytest.mark.needs("root", "bridge"), pytest.mark.usefixtures("no_network_stays")]

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., mc.Container]
SIOCGIFADDR = 0x8915  # netdevice(7)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("fake") / "fakenet")
    names = ["tests/native/fakenet.c", "csrc/vmm/report.c"]
    names += [f"csrc/virtio/{name}.c" for name in ("memory", "mmio", "net", "ring", "worker")]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-static", "-pthread"]
    includes = [f"-I{ROOT}/csrc", f"-I{ROOT}/tests/unit"]
    subprocess.run(["cc", *flags, *includes, "-o", path, *(ROOT / name for name in names)], check=True)
    return path


@pytest.fixture
def machine(program: str, on: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Starts a detached machine on the network."""

    def inputs(_: mc.Spec, devices: Any, stack: Any) -> dict[str, int]:
        number = lib.MC_VMM_GIVEN_FD + devices.index(NETWORK)
        fds = {"machine": sealed_memfd("machine", str(number).encode()), "program": os.open(program, os.O_RDONLY)}
        for name in ("kvm", *(f"file-{i}" for i in range(lib.MC_VMM_FILES))):
            fds[name] = os.open("/dev/null", os.O_RDONLY)
        for fd in fds.values():
            stack.callback(os.close, fd)
        return fds

    monkeypatch.setattr(start, "_inputs", inputs)
    return lambda name, **options: on(name, isolation="kvm", **options)


def address_of_eth0() -> str:
    """The IPv4 address of eth0 in this network namespace; OSError: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return socket.inet_ntoa(fcntl.ioctl(s, SIOCGIFADDR, b"eth0".ljust(40, b"\0"))[20:24])


def test_packets_reach_it_from_a_container_and_from_the_host(machine: Make, on: Make) -> None:
    guest, client = machine("guest", ports=mc.Port.option("7/udp")), on("client", cap_add=("NET_RAW",))
    lease = guest.lease()
    assert lease is not None
    assert client.run(["ping", "-c3", "-W3", "guest"], capture_output=True).returncode == 0
    for size in (1, 64, 1400):
        data = os.urandom(size)
        assert inside(client.pid, partial(ask, str(lease.address), 7, udp=True, data=data)) == data
        assert ask("127.0.0.1", lease.ports[0].host, udp=True, data=data) == data
    guest.remove(force=True)
    assert not is_reached("127.0.0.1", lease.ports[0].host, udp=True)


def test_the_monitor_itself_has_no_address(machine: Make, network: Network) -> None:
    """Its kernel would answer for the guest, or beside it."""
    guest = machine("guest", ip=str(network.subnet[99]), mac_address="02:42:00:00:00:63")
    with pytest.raises(OSError, match="assign"):
        inside(guest.pid, address_of_eth0)
    assert "eth0" not in Path(f"/proc/{guest.pid}/net/if_inet6").read_text(encoding="ascii")
    root = Path(f"/proc/{guest.pid}/root")
    assert f"{network.subnet[99]}\tguest" in (root / "etc" / "hosts").read_text(encoding="utf-8")
    assert (root / "etc" / "hostname").read_text(encoding="utf-8") == "guest\n"
    assert not (root / "dev" / "null").exists(), "the files' tmpfs has gone"


def test_one_that_is_started_again_is_on_the_network_again(machine: Make, on: Make) -> None:
    guest, client = machine("guest"), on("client", cap_add=("NET_RAW",))
    guest.stop(0)
    assert guest.lease() is None
    guest.start_again()
    assert client.run(["ping", "-c1", "-W3", "guest"], capture_output=True).returncode == 0

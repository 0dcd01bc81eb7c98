"""``compare devices``: the program that it measures, and QEMU's guest. It boots nothing here; figures come from the
command itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from minicontainer.compare import devices, qemuguest
from minicontainer.compare.contenders import TOTAL
from minicontainer.compare.linux import Marked
from minicontainer.compare.network import serving
from minicontainer.compare.networkworker import BULK
from minicontainer.errors import Error
from minicontainer.microvm import modules
from minicontainer.microvm.kernelfile import LinuxKernel
from minicontainer.native import LIBEXEC
from minicontainer.network import networks

TRANSFER = os.path.join(LIBEXEC, "transfer")


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "data").write_bytes(bytes(1 << 16))
    return str(tmp_path / "data")


def test_the_program_marks_the_begin_and_end_of_each_part(data: str) -> None:
    with serving(0, 0) as port:
        words = [data, "3", "127.0.0.1", str(port), str(BULK), "2"]
        done = subprocess.run([TRANSFER, *words], capture_output=True, check=True)
        assert done.stdout.split() == [*devices.MARKS.values()]
        contender = Marked("here", [TRANSFER, *words], devices.MARKS)
        assert contender.parts == (*devices.MARKS, TOTAL)
        assert len(contender.once()) == len(contender.parts)


def test_a_program_that_fails_is_an_error_with_its_reason(data: str) -> None:
    for words, reason in (
        ((data + "-none", "1", "127.0.0.1", "9"), "No such file"),
        ((data, "1", "nowhere", "9"), "connect\\(nowhere\\)"),
    ):
        with pytest.raises(Error, match=reason):
            Marked("here", [TRANSFER, *words, "1", "1"], devices.MARKS).once()


def test_the_reason_of_a_machines_failure_is_not_what_its_kernel_printed() -> None:
    script = "echo 'minicontainer: machine: it has ended'; echo '[ 0.1] a line of its kernel'; exit 125"
    with pytest.raises(Error, match=r"^minicontainer: machine: it has ended \(status 125\)$"):
        Marked("here", ["sh", "-c", script], devices.MARKS).once()


def test_qemus_guest_loads_drivers_and_runs_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(b"the shell")
    files = [f"{LIBEXEC}/{name}" for name in ("pause", "mark")]  # ELF files, as modules are
    monkeypatch.setattr(modules, "load_order", lambda *_: files)
    kernel = LinuxKernel("/boot/vmlinuz", "6.1.0", None, None)
    archive = qemuguest.initrd(kernel, str(tmp_path), "192.0.2.7/24", "/disk/transfer /disk/data")
    (tmp_path / "archive").write_bytes(archive)
    (tmp_path / "out").mkdir()
    with open(tmp_path / "archive", "rb") as given:
        subprocess.run(["busybox", "cpio", "-i", "-d"], stdin=given, cwd=tmp_path / "out", check=True)
    for number, file in enumerate(files):
        assert (tmp_path / f"out/modules/0{number}.ko").read_bytes() == Path(file).read_bytes()
    assert (tmp_path / "out/bin/busybox").read_bytes() == b"the shell"
    script = (tmp_path / "out/init").read_text(encoding="utf-8").splitlines()
    assert script[0] == "#!/bin/busybox sh"
    assert script[-2:] == ["/disk/transfer /disk/data", "/bin/busybox poweroff -f"]
    assert "/bin/busybox ip address add 192.0.2.7/24 dev eth0" in script


@pytest.mark.needs("root", "bridge", "tun")
def test_a_tap_is_a_port_of_the_bridge_and_goes() -> None:
    network = networks.create("tapped", ipv6=False)
    try:
        with qemuguest.tap_on(network, "mctap-test") as name:
            assert os.path.isdir(f"/sys/class/net/{network.interface}/brif/{name}")
        assert not os.path.exists("/sys/class/net/mctap-test")
    finally:
        networks.remove("tapped")

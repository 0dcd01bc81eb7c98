"""Which devices a container can use: not even its root has others, though it may make nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from box import Box

import minicontainer as mc
from minicontainer.container.cgroup.devices import _cache
from minicontainer.errors import IsolationWarning, StepError
from minicontainer.linux import devices

pytestmark = pytest.mark.needs("root", "cgroup2")

HOST = ("--userns", "host", "--tmpfs", "/nodes:dev")  # a place where nodes work, and root who may make them
MAKE = "cd /nodes; for n in 3 5 11; do mknod n$n c 1 $n 2>/dev/null && : <n$n && echo $n; done; mknod d b 7 0 2>&1"


def test_only_the_usual_ones_can_be_made_and_opened(box: Box) -> None:
    assert box.sh(f"{MAKE}; true", *HOST).split("\n") == ["3", "5", "mknod: d: Operation not permitted"]


def test_without_the_program_all_could(box: Box) -> None:
    assert box.sh(MAKE, *HOST, "--privileged").split() == ["3", "5", "11"]


def test_a_device_that_was_given(box: Box) -> None:
    """And its access; the device is what counts, not the name of a node."""
    options = [*HOST, "--device", "/dev/kmsg:/dev/log:w"]
    script = "(: >/dev/log) && echo written; (: </dev/log) || mknod /nodes/x c 1 11; (: <>/nodes/x)"
    done = box.run("sh", "-c", script, options=options)
    assert (done.stdout, done.returncode) == ("written\n", 1)
    assert done.stderr.count("Operation not permitted") == 2


@pytest.mark.parametrize("userns", ["host", "auto"])
def test_access_can_be_less(box: Box, userns: str) -> None:
    script = "head -c 1 /dev/z | od -An -tx1; (: >/dev/z) 2>&1"
    done = box.run("sh", "-c", script, options=["--userns", userns, "--device", "/dev/zero:/dev/z:r"])
    assert done.stdout.split("\n")[0].strip() == "00"
    assert "/dev/z: Operation not permitted" in done.stdout


def test_a_node_of_a_volume_is_inert(own_box: Box, tmp_path: Path) -> None:
    os.mknod(tmp_path / "node", 0o020666, os.makedev(1, 11))
    for mode, reason in (("rw", "Permission denied"), ("dev", "Operation not permitted")):
        options = ["--userns", "host", "-v", f"{tmp_path}:/mnt:{mode}"]
        done = own_box.run("sh", "-c", ": </mnt/node", options=options)
        assert done.returncode == 1
        assert reason in done.stderr


def test_where_there_is_no_program_it_is_said(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "attach", refuse)
    monkeypatch.setattr("minicontainer.container.cgroup.devices.cached", lambda _: -1)
    with pytest.warns(IsolationWarning, match="devices: the container can use any of which it has a node: bpf"):
        assert mc.run(["/bin/true"], rootfs=rootfs, userns="host").returncode == 0
    assert mc.run(["/bin/true"], rootfs=rootfs).returncode == 0  # it can have no node
    less = mc.Spec(("/bin/true",), rootfs=str(rootfs), devices=(mc.Device("/dev/zero", "/dev/zero", "r"),))
    with pytest.raises(mc.UnsupportedError, match="devices /dev/zero:/dev/zero:r: bpf"):
        mc.run(less)


def refuse(*_: object) -> None:
    raise StepError(1, "bpf(BPF_PROG_ATTACH)")


def test_a_program_whose_descriptor_was_closed_is_loaded_anew(rootfs: Path) -> None:
    """As daemons do; the number may be a file's by then, which stays open."""
    spec = mc.Spec(("/bin/true",), rootfs=str(rootfs), userns="host")
    assert mc.run(spec).returncode == 0
    number = _cache["program"]
    with open("/dev/null", "rb") as file:
        os.dup2(file.fileno(), number)
    for _ in range(2):  # a warning would be an error
        assert mc.run(spec).returncode == 0
    assert os.readlink(f"/proc/self/fd/{number}") == "/dev/null"
    os.close(number)
    os.dup2(_cache["program"], number, inheritable=False)
    os.close(_cache["program"])
    _cache["program"] = number

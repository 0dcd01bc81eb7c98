"""Files of a virtual machine that runs, from the host: those that its monitor serves, and no others. The monitor is one
that makes no machine (fakevmm.c); tests/rig/test_machine_detached.py has the whole."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fakemachine import fake, pretend, program

import minicontainer as mc
from minicontainer.errors import Error

__all__ = ["fake", "pretend", "program"]  # fixtures
pytestmark = pytest.mark.needs("root")

Container = mc.Container
TMPFS = mc.Mount("/run/tmp", type="tmpfs")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """With something below what the guest mounts, by a link too."""
    root = tmp_path / "root"
    for name in ("etc", "really/tmp", "proc", "data"):
        (root / name).mkdir(parents=True)
    (root / "etc/file").write_text("of ROOTFS")
    (root / "really/tmp/below").write_text("not seen in the guest")
    (root / "proc/below").write_text("nor this")
    (root / "run").symlink_to("really")
    return root


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here/really/tmp").mkdir(parents=True)
    (tmp_path / "here/new").write_text("of the host")
    (tmp_path / "here/really/tmp/new").write_text("for a place that cannot be reached")
    (tmp_path / "volume").mkdir()
    return tmp_path / "here"


def test_files_go_in_and_come_out(fake: Callable[..., Container], rootfs: Path, here: Path, tmp_path: Path) -> None:
    container = fake("runs", mounts=(TMPFS, mc.Mount("/data", f"{tmp_path}/volume")))
    assert container.copy_in(f"{here}/new", "/etc/new") == container.copy_in(f"{here}/new", "/data") == []
    assert (rootfs / "etc/new").read_text() == (tmp_path / "volume/new").read_text() == "of the host"
    assert ((rootfs / "etc/new").stat().st_uid, list((rootfs / "data").iterdir())) == (0, [])
    assert container.copy_out("/etc/file", f"{here}/out") == []
    assert (here / "out").read_text() == "of ROOTFS"


OWN = "is a file system of the guest's own"


def test_what_the_guest_has_mounted_is_no_place_of_the_host(
    fake: Callable[..., Container], rootfs: Path, here: Path
) -> None:
    container = fake("runs", mounts=(TMPFS,))
    for place in ("/run/tmp", "/really/tmp/x", "/proc/x", "/dev/shm/.."):
        with pytest.raises(Error, match=r"^cp .*(is in a file system of the guest's own|no such file)"):
            container.copy_in(f"{here}/new", place)
    with pytest.raises(Error, match="is in a file system of the guest's own"):
        container.copy_out("/run/tmp/below", f"{here}/out")
    with pytest.raises(Error, match=rf"^cp .*really/tmp.* {OWN}"):
        container.copy_in(f"{here}/.", "/")
    assert [path.name for path in (rootfs / "really/tmp").iterdir()] == ["below"]
    said = container.copy_out("/", f"{here}/all")
    assert sorted(line.split(": ")[0].removeprefix("cp ") for line in said if OWN in line) == ["/proc", "/really/tmp"]
    assert not (here / "all/proc").exists()
    assert (here / "all/etc/file").exists()


def test_an_archive_has_what_the_guest_sees(fake: Callable[..., Container], here: Path) -> None:
    container = fake("runs", mounts=(TMPFS,))
    assert container.export(f"{here}/tar") == []
    with tarfile.open(here / "tar") as archive:
        found = {member.name: member.isdir() for member in archive}
    assert {name: found[name] for name in ("proc", "really/tmp", "etc/file")} == {
        "proc": True,
        "really/tmp": True,
        "etc/file": False,
    }
    assert not any(name.endswith("below") for name in found)


def test_an_upper_layer_is_the_monitors(fake: Callable[..., Container], rootfs: Path, here: Path) -> None:
    container = fake("runs", ephemeral=True, mounts=(TMPFS,))
    assert container.sizes()[0] == 0
    container.copy_in(f"{here}/new", "/etc/new")
    assert [(change.kind, change.path) for change in container.changes()] == [("C", "/etc"), ("A", "/etc/new")]
    assert not os.path.exists(rootfs / "etc/new")


@pytest.mark.parametrize("what", ["cp", "diff", "export"])
def test_a_root_in_the_guest_alone_is_refused_by_its_name(fake: Callable[..., Container], what: str) -> None:
    container = fake("runs", ephemeral=True, root_image="erofs")
    calls: dict[str, Callable[[], object]] = {
        "cp": lambda: container.copy_out("/etc", "/tmp/x"),
        "diff": container.changes,
        "export": lambda: container.export("/tmp/x"),
    }
    with pytest.raises(Error, match=rf"^{what} {container.id[:12]}: its files are in the guest alone.*\(root_image\)"):
        calls[what]()

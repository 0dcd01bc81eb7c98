"""``rootfs busybox``: what it makes, that it makes it whole or not at all, and what it refuses."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
from supplies import Run
from tars import snapshot

from minicontainer import rootfs as maker
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.rootfs import applets


def test_what_it_holds(rootfs: Path) -> None:
    modes = {name: stat.S_IMODE((rootfs / name).stat().st_mode) for name in ("tmp", "var/tmp", "root", "bin", "proc")}
    assert modes == {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "bin": 0o755, "proc": 0o755}
    users = {line.split(":")[0]: line.split(":")[2] for line in (rootfs / "etc/passwd").read_text().splitlines()}
    assert users == {"root": "0", "daemon": "1", "nobody": "65534", "user": "1000"}
    assert "127.0.0.1\tlocalhost" in (rootfs / "etc/hosts").read_text()
    assert (rootfs / "home/user").stat().st_uid == (1000 if os.geteuid() == 0 else os.geteuid())


def test_every_applet_is_a_relative_link_to_busybox(rootfs: Path) -> None:
    links = [path for directory in applets.BINARIES for path in (rootfs / directory).iterdir() if path.is_symlink()]
    assert len(links) > 200
    assert {os.path.relpath(path.resolve(), rootfs) for path in links} == {"bin/busybox"}
    assert not [path for path in links if os.readlink(path).startswith("/")]
    assert {"sh", "env", "mount"} <= {path.name for path in links}


def test_again_costs_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.busybox(tmp_path / "r")
    (tmp_path / "r/tmp/mine").write_text("kept")
    before = snapshot(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")  # it is not even looked for
    maker.busybox(tmp_path / "r")
    assert snapshot(tmp_path) == before


def test_an_empty_directory_is_filled_in_place(tmp_path: Path) -> None:
    inode = tmp_path.stat().st_ino
    maker.busybox(tmp_path)
    assert tmp_path.stat().st_ino == inode
    assert (tmp_path / "bin/sh").exists()


def test_refusals_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("x")
    before = snapshot(tmp_path)
    for name, error, words in (
        ("full", SpecError, "is not empty"),
        ("file", SpecError, "is not a directory"),
        ("dangling", SpecError, "dangling symbolic link"),
        ("missing/r", Error, "No such file or directory"),
        ("", SpecError, "names no directory"),
        ("/", SpecError, "root of this host"),
    ):
        with pytest.raises(error, match=words):
            maker.busybox(f"{tmp_path}/{name}" if name not in ("", "/") else name)
    assert snapshot(tmp_path) == before


def test_a_link_named_as_our_mark_is_not_followed(tmp_path: Path) -> None:
    maker.busybox(tmp_path / "ours")
    (tmp_path / "other/etc").mkdir(parents=True)
    (tmp_path / "other/etc/os-release").symlink_to(tmp_path / "ours/etc/os-release")
    with pytest.raises(SpecError, match="is not empty"):
        maker.busybox(tmp_path / "other")


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    if there:
        (tmp_path / "r").mkdir()
    before = snapshot(tmp_path, times=False)

    def fail(root: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(applets, "_give_home", fail)
    with pytest.raises(OSError, match="No space"):
        maker.busybox(tmp_path / "r")
    assert snapshot(tmp_path, times=False) == before


def test_without_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"not in PATH \(install the package busybox-static\)"):
        maker.busybox(tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_dynamic_busybox_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(os.path.realpath(sys.executable), tmp_path / "busybox")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"not static, it needs /.*busybox-static"):
        maker.busybox(tmp_path / "r")


def test_a_busybox_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busybox").write_text("#!/bin/false\n")
    (tmp_path / "busybox").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(Error, match="does not run"):
        maker.busybox(tmp_path / "r")


def test_the_command(tmp_path: Path, minicontainer_cli: Run) -> None:
    for _ in range(2):
        done = minicontainer_cli("rootfs", "busybox", tmp_path / "r/")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = minicontainer_cli("rootfs", "busybox", tmp_path)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("minicontainer: DIR ")
    assert done.stderr.count("\n") == 1

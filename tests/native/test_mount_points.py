"""What volumes are mounted on: made where it is not there, also where links of ROOTFS lead, and never outside; and in a
ROOTFS that is read-only nothing is made (``-v``, ``--tmpfs``, ``--read-only``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from box import CLI, Box, copy_of
from hostile import make_outside, variant, watched
from supplies import Run
from tars import snapshot

import minicontainer as mc

Make = Callable[..., mc.Container]
FILE, DIRECTORY, TMPFS = "file", "directory", "tmpfs"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """What is mounted: a file, and a directory with a file in it."""
    path = tmp_path / "given"
    (path / DIRECTORY).mkdir(parents=True)
    (path / DIRECTORY / "in").write_text("given\n", encoding="ascii")
    (path / FILE).write_text("given\n", encoding="ascii")
    return path


def option(kind: str, given: Path, target: str) -> list[str]:
    return ["--tmpfs", target] if kind == TMPFS else ["-v", f"{given / kind}:{target}"]


def shown(box: Box, kind: str, given: Path, target: str, *more: object) -> None:
    """It is there, and nothing else is said."""
    looks = {
        FILE: f"cat {target}",
        DIRECTORY: f"cat {target}/in",
        TMPFS: f"echo given >{target}/x && cat {target}/x",
    }
    assert box.sh(looks[kind], *option(kind, given, target), *more) == "given"


# ---- links that lead to nothing


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, TMPFS])
@pytest.mark.parametrize(
    ("links", "made"),
    [
        ({"etc/localtime": "/usr/share/zoneinfo/UTC"}, "usr/share/zoneinfo/UTC"),
        ({"etc/localtime": "../usr/share/zoneinfo/UTC"}, "usr/share/zoneinfo/UTC"),
        ({"etc/localtime": "../../../../gone"}, "gone"),
        ({"etc/localtime": "/a", "a": "srv/b", "srv/b": "../c/.//d", "c": "/home"}, "home/d"),
        ({"etc/localtime": "new/../other"}, "etc/other"),
        ({"etc": "/config/etc"}, "config/etc/localtime"),
        ({"etc": "usr/../gone"}, "gone/localtime"),
        ({"etc/localtime": "x" * 255}, f"etc/{'x' * 255}"),
    ],
    ids=["absolute", "relative", "above the root", "chain", "..", "on the way", "on the way, relative", "long"],
)
def test_links_that_lead_nowhere(own_box: Box, given: Path, kind: str, links: dict[str, str], made: str) -> None:
    root = own_box.rootfs
    if "etc" in links:
        shutil.rmtree(root / "etc")
    (root / "srv").mkdir(exist_ok=True)
    for name, target in links.items():
        (root / name).symlink_to(target)
    for userns in ("private", "host"):  # made by the first, there for the second
        shown(own_box, kind, given, "/etc/localtime", "--userns", userns)
    assert (root / made).is_file() if kind == FILE else (root / made).is_dir()
    assert (root / made).lstat().st_uid == 0
    for name, target in links.items():
        assert os.readlink(root / name) == target


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, TMPFS])
@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ({"at": "at"}, "too many levels of symbolic links"),
        ({"at": "b", "b": "c/at", "c": "."}, "too many levels of symbolic links"),
        ({"at": "/proc/self/cwd/x"}, "too many levels of symbolic links"),
        ({"at": "/proc/nothing/x"}, "is not there, and cannot be made"),
        ({"at": "/sys/nothing/x"}, "is not there, and cannot be made"),
        ({"at": "bin/busybox/x"}, "a file lies where a directory is needed"),
        ({"at": "/".join(["y" * 255] * 15), "y" * 255: "/".join(["y" * 255] * 15)}, "file name too long"),
    ],
    ids=["itself", "each other", "magic", "proc", "sys", "through a file", "too long"],
)
def test_links_that_lead_to_what_cannot_be(
    own_box: Box, given: Path, kind: str, links: dict[str, str], reason: str
) -> None:
    for name, target in links.items():
        (own_box.rootfs / name).symlink_to(target)
    before = snapshot(own_box.rootfs)
    own_box.refused("true", options=option(kind, given, "/at"), says=["target", "/at", reason])
    assert snapshot(own_box.rootfs) == before


@pytest.mark.needs("root")
def test_through_a_volume(own_box: Box, given: Path, tmp_path: Path) -> None:
    """A link in a volume leads into the container, and what is made lies where it is then."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "absolute").symlink_to("/made/here")
    (volume / "up").symlink_to("../../up/here")
    (volume / "own").symlink_to("below/here")
    options = [f"--volume={given}/directory:/mnt/{name}" for name in ("absolute", "up", "own")]
    script = "cat /made/here/in /up/here/in /mnt/below/here/in"
    assert own_box.sh(script, f"--volume={volume}:/mnt", *options).split() == ["given"] * 3
    assert (own_box.rootfs / "made/here").is_dir()
    assert (own_box.rootfs / "up/here").is_dir()
    assert (volume / "below/here").is_dir()


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["absolute", "sibling", "upward"])
@pytest.mark.parametrize("more", [[], ["--userns", "host"], ["--ephemeral"], ["--read-only"]], ids=" ".join)
def test_never_outside(box: Box, tmp_path: Path, given: Path, kind: str, more: list[str]) -> None:
    outside = make_outside(tmp_path / "outside")
    with variant(tmp_path, "volume", kind, outside / "new") as root, watched(outside):
        options = ["-v", f"{given}/directory:/volume/a", *more]
        done = box.run("sh", "-c", "read x </volume/a/in; echo $x", options=options, rootfs=root)
        assert (done.returncode, done.stdout, done.stderr) == (0, "given\n", "")


# ---- read-only


def lacking(path: Path) -> Path:
    """It has nothing but a shell: neither /dev nor /proc nor /sys."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), path / "bin/busybox")
    (path / "bin/sh").symlink_to("busybox")
    (path / "link").symlink_to("gone/there")
    return path


@pytest.mark.needs("root", "overlay")
@pytest.mark.parametrize("userns", ["private", "host"])
@pytest.mark.parametrize("network", ["none", "host"])
def test_a_rootfs_that_is_read_only_is_not_written_to(
    box: Box, tmp_path: Path, given: Path, userns: str, network: str
) -> None:
    root = lacking(tmp_path / "root")
    before = snapshot(root)
    options = [*option(DIRECTORY, given, "/data/new"), *option(FILE, given, "/file"), *option(TMPFS, given, "/link/x")]
    options += ["--read-only", "--userns", userns, "--network", network]
    script = (
        "read x </data/new/in; echo $x; echo >/file; echo >/link/x/y; for d in / /data /link /etc /dev/../proc/..; do"
        " (: >$d/new) 2>/dev/null && echo $d; done;"
        " test -e /proc/self/exe -a -c /dev/null -a -d /sys/kernel && echo all"
    )
    done = box.run("sh", "-c", script, options=options, rootfs=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "given\nall\n", "")
    assert snapshot(root) == before
    assert (given / FILE).read_text(encoding="ascii") == "\n"


@pytest.mark.needs("root")
def test_a_rootfs_that_has_all_needs_no_layer(box: Box, given: Path) -> None:
    types = "grep ' / / ' /proc/self/mountinfo || awk '$5 == \"/\"' /proc/self/mountinfo"
    options = ["--read-only", *option(DIRECTORY, given, "/mnt")]
    assert "overlay" not in box.sh(types, *options)
    assert "overlay" in box.sh(types, *options, "--tmpfs", "/new")


@pytest.mark.needs("root", "overlay")
def test_a_detached_one(make: Make, tmp_path: Path, given: Path) -> None:
    root = lacking(tmp_path / "root")
    before = snapshot(root)
    volume = mc.Mount("/new", str(given))
    c = make("sh", "-c", "while :; do read x; done", rootfs=str(root), read_only=True, mounts=(volume,))
    assert c.run(["sh", "-c", "read x </new/file; echo $x; : >/x"], capture_output=True, text=True).stdout == "given\n"
    c.restart(0)
    assert c.run(["sh", "-c", "read x </new/file; echo $x"], capture_output=True, text=True).stdout == "given\n"
    c.remove(force=True)
    assert snapshot(root) == before


@pytest.mark.needs("root")
def test_what_goes_missing_is_not_made(
    rootfs: Path, tmp_path: Path, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ROOTFS is read-only before it is entered: whatever it was when it was looked at."""
    from minicontainer.container.filesystem import view

    root = copy_of(rootfs, tmp_path / "root")
    monkeypatch.setattr(view, "lacks_any", lambda *_: False)
    before = snapshot(root)
    with pytest.raises(
        mc.SpecError, match=r"^bind target /new/x: is not there, and cannot be made: read-only file system"
    ):
        mc.run(["true"], rootfs=str(root), read_only=True, mounts=(mc.Mount("/new/x", str(given)),))
    assert snapshot(root) == before


def test_an_ordinary_users(as_user: Run, user_directory: Path) -> None:
    root = lacking(user_directory / "root")
    before = snapshot(root)
    script = "echo >/new/x/y; (: >/x) 2>/dev/null || echo denied"
    command = [*CLI, "run", "--read-only", "--tmpfs", "/new/x", "--tmpfs", "/link", root, "sh", "-c", script]
    done = as_user(command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "denied\n", "")
    assert snapshot(root) == before

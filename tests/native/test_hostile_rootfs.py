"""Root file systems that were made to do harm: a container starts in them as in others, or is refused in one line;
and nothing outside is opened, made or changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile
import pytest
from abilities import USER_ID
from box import Box, refusal
from hostile import KINDS, LINKS, Outcome, Watch, make_outside, variant, watched
from supplies import Run

import minicontainer as mc
from minicontainer.container import host
from minicontainer.linux import elf
from minicontainer.native import LIBEXEC

SELVES = ("python", "link", "script")
TESTS = Path(__file__).resolve().parents[1]
NO_DIRECTORY = (*LINKS, "file", "fifo", "socket")
LOOP = "too many levels of symbolic links"
OTHER = "a file lies where a directory is needed"


def expected(place: str, kind: str) -> str:
    """What the error has to say; "" where the container is to start."""
    if place in ("dev", "proc", "sys"):
        return f"has a file or a link for /{place} (it must be a directory)" if kind in NO_DIRECTORY else ""
    if place in ("etc", "etc/passwd"):
        return "" if (place, kind) == ("etc/passwd", "file") else "user root: is not in the container's /etc/passwd"
    if place == "work":
        reasons = {"mirrored": "", "closed": "", "loop": LOOP, "file": "not a directory"}
        reason = reasons.get(kind, "not a directory" if kind in ("fifo", "socket") else "no such file or directory")
        return f"cwd /work: {reason}" if reason else ""
    if place == "file" and kind in ("mirrored", "closed", "file", "fifo", "socket", "missing"):
        return OTHER if kind in ("mirrored", "closed") else ""
    if place in ("volume", "file", "a"):
        if kind == "magic":
            return LOOP  # where it leads, it does not say
        return {"mirrored": "", "missing": "", "closed": "", "loop": LOOP}.get(kind, "" if kind in LINKS else OTHER)
    return ""


def check(outcomes: list[Outcome], kinds: tuple[str, ...] = KINDS) -> None:
    """Each is as it must be."""
    assert len(outcomes) == len(hostile.PLACES) * len(kinds)
    for place, kind, said in outcomes:
        error = expected(place, kind)
        assert said == "works" if not error else error in said, (place, kind, said)
        assert said.isprintable()


@pytest.mark.needs("root")
@pytest.mark.parametrize("userns", ["auto", "host"])
def test_every_variant(tmp_path: Path, userns: str) -> None:
    check(list(hostile.every(tmp_path, userns=userns)))


@pytest.mark.needs("root", "overlay")
@pytest.mark.parametrize("more", [{"ephemeral": True}, {"privileged": True}], ids=str)
def test_other_roots(tmp_path: Path, more: dict[str, Any]) -> None:
    some = ("absolute", "mirrored", "upward", "fifo", "missing")
    check(list(hostile.every(tmp_path, some, **more)), some)


def test_every_variant_as_an_ordinary_user(user_directory: Path, as_user: Run) -> None:
    done = as_user([sys.executable, TESTS / "hostile.py", user_directory, "private"], timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    check([Outcome(*line.split("\t")) for line in done.stdout.splitlines()])


@pytest.mark.needs("root")
@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
@pytest.mark.parametrize("kind", ["absolute", "upward", "fifo"])
def test_the_command_says_it_in_one_line(box: Box, tmp_path: Path, place: str, kind: str) -> None:
    outside = make_outside(tmp_path / "outside")
    with variant(tmp_path, place, kind, outside) as root, watched(outside):
        box.refused("true", rootfs=root, says=[f"rootfs {root}: has a file or a link for /{place}"])


def test_the_watch_sees_what_is_done(tmp_path: Path) -> None:
    outside = make_outside(tmp_path / "outside")
    for act in (
        (outside / "null").read_bytes,
        lambda: os.listdir(outside / "pts"),
        (outside / "new").touch,
        lambda: (outside / "a/new").symlink_to("x"),
        lambda: (outside / "file").chmod(0o777),
    ):
        with pytest.raises(AssertionError, match=str(outside)), watched(outside):
            act()
    with watched(outside):
        pass


@pytest.mark.needs("root")
def test_rootfs_itself_a_link(box: Box, tmp_path: Path) -> None:
    """It is the caller's word, and followed: but what it is must be a directory."""
    outside = make_outside(tmp_path / "outside")
    with variant(tmp_path, "", "", outside) as root, watched(outside):
        (tmp_path / "link").symlink_to(root)
        done = box.run("sh", "-c", "echo works", rootfs=tmp_path / "link")
        assert (done.returncode, done.stdout, done.stderr) == (0, "works\n", "")
        for target, reason in (
            (outside / "file", "is not a directory"),
            ("wrong", LOOP),
            ("gone", "no such directory"),
            ("/", "is the host's own root"),
        ):
            (tmp_path / "wrong").symlink_to(target)
            box.refused("true", rootfs=tmp_path / "wrong", says=[f"rootfs {tmp_path}/wrong: {reason}"])
            (tmp_path / "wrong").unlink()


@pytest.mark.needs("root")
@pytest.mark.parametrize("init", [[], ["--init"]], ids=["", "init"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_program(box: Box, tmp_path: Path, kind: str, init: list[str]) -> None:
    """The outside has programs; none of them is run or opened."""
    outside = make_outside(tmp_path / "outside")
    with variant(tmp_path, "program", kind, outside) as root:
        if kind in LINKS and kind != "loop":
            (root / "program").unlink()
            hostile.make(root / "program", kind, outside / "run", root)
        (outside / "run").write_text("#!/bin/sh\necho outside\n")
        (outside / "run").chmod(0o755)
        with watched(outside):
            done = box.run("/program", rootfs=root, options=init)
    missing = kind == "missing" or (kind in LINKS and kind != "mirrored")
    refusal(done, 127 if missing else 126, ["program /program"])


def make_self(root: Path) -> None:
    """Programs that are /proc/self/exe, and a loader of this Python's that ends as it likes, but not with 125."""
    with open("/proc/self/exe", "rb") as file:
        loader = elf.interpreter(file.read(1 << 16))
    assert loader
    (root / loader[1:]).parent.mkdir(parents=True)
    shutil.copy(Path(LIBEXEC, "pause"), root / loader[1:])
    shutil.copy("/proc/self/exe", root / "python")
    (root / "link").symlink_to("/proc/self/exe")
    (root / "script").write_text("#!/proc/self/exe\n")
    (root / "script").chmod(0o755)


@pytest.mark.needs("root")
def test_the_program_is_never_what_the_container_could_write_to(box: Box, tmp_path: Path) -> None:
    """CVE-2019-5736: /proc/self/exe is the caller's executable until the child executes something."""
    with variant(tmp_path, "", "", tmp_path) as root:
        make_self(root)
        for options in ([], ["--init"]):
            done = box.run("/python", rootfs=root, options=["--userns", "host", *options])
            assert (done.returncode not in (125, 126, 127), done.stderr) == (True, ""), "the loader does not run"
            for program in ("/link", "/script"):
                done = box.run(program, rootfs=root, options=["--userns", "host", *options])
                assert (done.returncode, done.stdout, done.stderr) == (125, "", "")


def test_the_program_is_never_what_its_user_could_write_to(user_directory: Path, as_user: Run) -> None:
    own = user_directory / "python"
    shutil.copy("/proc/self/exe", own)
    os.chown(own, user_directory.stat().st_uid, user_directory.stat().st_gid)
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PYTHONHOME": sys.base_prefix}
    with variant(user_directory, "", "", user_directory) as root:
        make_self(root)
        subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(root)], check=True)
        codes = [
            as_user([own, "-m", "minicontainer", "run", root, f"/{p}"], env=environment).returncode for p in SELVES
        ]
    assert codes[0] not in (125, 126, 127)
    assert codes[1:] == [125, 125]


@pytest.mark.needs("root")
def test_who_could_write_to_our_executable(tmp_path: Path) -> None:
    """This Python is root's, and nobody else may write to it; a container of other ids needs no more."""
    info = os.stat("/proc/self/exe")
    assert (info.st_uid, info.st_mode & 0o022) == (0, 0)
    for wish, mode, expected_one in (
        ("host", "host", True),
        ("pid:1", "join", True),
        ("auto", "range", False),
        ("100000:100000:65536", "range", False),
        ("0:100000:65536", "range", True),
        ("private", "private", True),  # of root's own ids
    ):
        spec = mc.Spec(rootfs=str(tmp_path), userns=wish)
        assert host.exe_reachable(spec, mode) is expected_one, wish


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["fifo", "node", "socket", "directory"])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_only_a_file_is_read_for_names(box: Box, tmp_path: Path, kind: str, name: str) -> None:
    """To open a device can be to act on it (/dev/watchdog restarts the machine)."""
    outside = make_outside(tmp_path / "outside")
    with variant(tmp_path, "", "", outside) as root:
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("user:x:7:8::/:/bin/sh\n")
        (root / "etc/group").write_text("group:x:9:\n")
        (root / "etc" / name).unlink()
        if kind == "node":
            os.mknod(root / "etc" / name, 0o020666, os.makedev(1, 5))
        elif kind == "directory":
            (root / "etc" / name).mkdir()
        else:
            hostile.make(root / "etc" / name, kind, outside, root)
        with contextlib.closing(Watch(root / "etc")) as watch:
            done = box.run("true", rootfs=root, options=["--user", "user:group"])
            assert not [event for event in watch.events() if f"/{name}:" in event]
    refusal(done, says=[f"is not in the container's /etc/{name}"])

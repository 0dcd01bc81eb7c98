"""``cp`` into detached containers and out of them: what arrives, whose it is, and that no link leads elsewhere."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box import copy_of, refusal
from hostile import LINKS, make_outside, swapping, watched
from hostile import make as make_hostile
from supplies import Run
from tars import snapshot

import minicontainer as mc
from minicontainer.detached.container import Container

pytestmark = pytest.mark.needs("root", "overlay")

Make = Callable[..., Container]
MODES = [
    {"userns": "auto"},
    {"userns": "host"},
    {"userns": "auto", "ephemeral": True},
    {"userns": "host", "ephemeral": True},
]
COPIES = 500  # each way


@pytest.fixture(params=MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def box(request: pytest.FixtureRequest, make: Make, rootfs: Path, tmp_path: Path) -> Container:
    """A container of a root file system of its own, which has a socket."""
    root = copy_of(rootfs, tmp_path / "root")
    os.mknod(root / "mnt" / "socket", stat.S_IFSOCK | 0o666)
    return make("sleep", "1000", rootfs=str(root), **request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of all kinds of files that can be copied."""
    top = tmp_path / "tree"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_text("text\n")
    (top / "a" / "empty").touch()
    (top / "a" / "line\nbreak").write_text("strange")
    (top / "a" / os.fsdecode(b"\xff\x01")).write_text("no unicode")
    (top / "a" / "link").symlink_to("/etc/passwd")
    (top / "a" / "nowhere").symlink_to("no/where")
    os.mkfifo(top / "a" / "fifo", 0o640)
    (top / "program").write_text("#!/bin/sh\n")
    (top / "program").chmod(0o751)
    (top / "closed").mkdir(mode=0o700)
    (top / "a" / "b" / "file").chmod(0o604)
    os.utime(top / "a" / "b" / "file", ns=(1_000_000_001, 1_234_567_890_123_456_789))
    (top / "a").chmod(0o555)
    os.utime(top / "a", ns=(1, 2))
    return top


def sh(container: Container, script: str) -> str:
    done = container.run(["sh", "-c", script], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return str(done.stdout.decode("utf-8", "surrogateescape").strip())


def looks(top: Path) -> dict[str, tuple[Any, ...]]:
    """Kinds, modes, contents, and the times of files and directories: what a copy has of a tree."""
    found = {}
    for name, (mode, _, _, _, _, held, _, _) in snapshot(top).items():
        at = os.lstat(top / name)
        found[name] = (mode, held, at.st_mtime_ns if stat.S_IFMT(at.st_mode) in (stat.S_IFREG, stat.S_IFDIR) else 0)
    return found


# ---- what arrives


def test_a_tree_goes_in_and_comes_out_as_it_was(box: Container, tree: Path, tmp_path: Path) -> None:
    assert box.copy_in(str(tree), "/tmp/in") == []
    assert sh(box, "cat /tmp/in/a/b/file; readlink /tmp/in/a/link; stat -c '%u %g' /tmp/in/a/* | sort -u") == (
        "text\n/etc/passwd\n0 0"
    )
    assert box.copy_out("/tmp/in", str(tmp_path / "out")) == []
    assert looks(tmp_path / "out") == looks(tree)
    assert {(at.st_uid, at.st_gid) for at in map(os.lstat, (tmp_path / "out").rglob("*"))} == {(0, 0)}


def test_owners_are_kept_when_asked_for(box: Container, tree: Path, tmp_path: Path) -> None:
    os.chown(tree / "program", 1000, 1001)
    os.chown(tree / "a" / "link", 7, 8, follow_symlinks=False)
    os.chown(tree / "a" / "fifo", 9, 10)
    (tree / "program").chmod(0o4751)
    box.copy_in(str(tree), "/tmp/in", archive=True)
    box.copy_in(str(tree), "/tmp/plain")
    assert sh(box, "cd /tmp/in; stat -c '%u %g %a' program a/link a/fifo a").split("\n") == [
        "1000 1001 4751",
        "7 8 777",
        "9 10 640",
        "0 0 555",
    ]
    assert sh(box, "stat -c '%u %g %a' /tmp/plain/program") == "0 0 751"
    box.copy_out("/tmp/in", str(tmp_path / "out"), archive=True)
    owners = {name: (at.st_uid, at.st_gid, at.st_mode) for name, at in _stats(tmp_path / "out").items()}
    assert owners == {name: (at.st_uid, at.st_gid, at.st_mode) for name, at in _stats(tree).items()}
    box.copy_out("/tmp/in/program", str(tmp_path / "program"))
    at = (tmp_path / "program").stat()
    assert (at.st_uid, at.st_gid, oct(at.st_mode)) == (0, 0, "0o100751")


def _stats(top: Path) -> dict[str, os.stat_result]:
    return {str(path.relative_to(top)): os.lstat(path) for path in top.rglob("*")}


def test_an_owner_who_is_nobody_inside_is_refused(make: Make, tmp_path: Path, rootfs: Path) -> None:
    c = make("sleep", "1000", rootfs=str(copy_of(rootfs, tmp_path / "root")))
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 70000, 0)
    with pytest.raises(mc.Error, match=r"owner 70000:0: is nobody in the container"):
        c.copy_in(str(tmp_path / "file"), "/tmp", archive=True)
    assert sh(c, "ls -A /tmp") == ""


@pytest.mark.parametrize("way", ["in", "out"])
def test_source_and_target_mean_what_dockers_do(make: Make, tree: Path, tmp_path: Path, rootfs: Path, way: str) -> None:
    c = make("sleep", "1000", rootfs=str(rootfs), ephemeral=True)
    c.copy_in(str(tree), "/tmp/tree")
    there = tmp_path / "there"
    there.mkdir()

    def copy(source: str, target: str, **options: bool) -> None:
        if way == "in":
            c.copy_in(f"{tree}{source}", f"/mnt{target}", **options)
        else:
            c.copy_out(f"/tmp/tree{source}", f"{there}{target}", **options)

    copy("/program", "/as")
    copy("/program", "")
    copy("/program", "/")
    copy("", "")
    copy("/", "/slash")
    copy("/.", "")
    copy("/a/.", "/new")
    copy("/a/b/..", "/up")
    copy("/a/link", "/link")
    copy("/a/b/file", "/as")
    if way == "in":
        (tree / "a" / "away").symlink_to("b/file")
    else:
        sh(c, "ln -s b/file /tmp/tree/a/away")
    copy("/a/away", "/led", follow_link=True)
    for source, target, words in (
        ("/none", "/x", "no such file or directory"),
        ("/program/", "/x", "not a directory"),
        ("/program", "/no/where", "no such file or directory"),
        ("/program", "/where/", "no such file or directory"),
        ("", "/as", "not a directory"),
        ("/program", "/a/b/../../closed/..", ""),
    ):
        if words:
            with pytest.raises(mc.Error, match=words):
                copy(source, target)
        else:
            copy(source, target)
    if way == "in":
        c.copy_out("/mnt/.", str(there))
    assert (there / "as").read_text() == (there / "led").read_text() == "text\n"
    assert (there / "link").readlink() == Path("/etc/passwd")
    for name in ("program", "tree/program", "slash/program", "up/b/file", "new/b/file", "a/b/file", "closed"):
        assert (there / name).exists(), name


def test_what_is_there_is_replaced_and_never_written_through(box: Container, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "file").write_text("new")
    sh(box, "mkdir -p /tmp/in; echo old >/tmp/other; ln -s /tmp/other /tmp/in/file; mkdir -m 711 /tmp/in/dir")
    box.copy_in(f"{source}/.", "/tmp/in")
    assert sh(box, "cat /tmp/in/file /tmp/other; test ! -L /tmp/in/file; stat -c %a /tmp/in/dir") == "newold\n711"
    (tmp_path / "other").write_text("old")
    out.mkdir()
    (out / "file").symlink_to(tmp_path / "other")
    box.copy_out("/tmp/in/.", str(out))
    assert (out / "file").read_text() == "new"
    assert (tmp_path / "other").read_text() == "old"
    (source / "dir").touch()
    with pytest.raises(mc.Error, match="is a directory"):
        box.copy_in(f"{source}/.", "/tmp/in")
    assert sh(box, "ls -A /tmp/in") == "dir\nfile"


def test_what_a_target_leads_to_is_meant(box: Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("new")
    sh(box, "mkdir /tmp/d; ln -s /tmp/d /tmp/to-d; ln -s d/f /tmp/to-f; ln -s /tmp/loop /tmp/loop")
    box.copy_in(str(tmp_path / "file"), "/tmp/to-d")
    box.copy_in(str(tmp_path / "file"), "/tmp/to-f")
    assert sh(box, "ls -A /tmp/d; readlink /tmp/to-f; cat /tmp/d/f") == "f\nfile\nd/f\nnew"
    with pytest.raises(mc.Error, match="too many levels of symbolic links"):
        box.copy_in(str(tmp_path / "file"), "/tmp/loop")


def test_holes_stay_holes_and_large_files_are_whole(box: Container, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as f:
        f.seek(3 << 30)
        f.write(b"middle")
        f.truncate(5 << 30)
    block = os.urandom(1 << 20)
    with open(tmp_path / "large", "wb") as f:
        for _ in range(70):
            f.write(block)
    for name in ("sparse", "large"):
        box.copy_in(str(tmp_path / name), "/tmp")
        box.copy_out(f"/tmp/{name}", str(tmp_path / "out"))
        at = (tmp_path / "out").stat()
        assert at.st_size == (tmp_path / name).stat().st_size
        if name == "sparse":
            assert at.st_blocks * 512 < 1 << 20
            with open(tmp_path / "out", "rb") as f:
                assert os.pread(f.fileno(), 8, (3 << 30) - 1) == b"\0middle\0"
        else:
            assert (tmp_path / "out").read_bytes() == block * 70


# ---- what is no file


def test_devices_and_sockets_are_left_out_and_fifos_not_opened(box: Container, tmp_path: Path) -> None:
    sh(box, "mkfifo -m 600 /mnt/fifo; echo x >/mnt/file")
    assert box.copy_out("/mnt", str(tmp_path / "d")) == ["cp /mnt/socket: is a socket: left out"]
    assert sorted(os.listdir(tmp_path / "d")) == ["fifo", "file"]
    assert (tmp_path / "d" / "fifo").is_fifo()
    dev = box.copy_out("/dev", str(tmp_path / "dev"))
    assert "cp /dev/null: is a device: left out" in dev
    assert (tmp_path / "dev" / "fd").readlink() == Path("/proc/self/fd")
    assert not [path for path in (tmp_path / "dev").rglob("*") if path.is_char_device() and not path.is_symlink()]
    assert box.copy_out("/proc/version", str(tmp_path / "version")) == [
        "cp /proc/version: is a file system of the kernel's: left out"
    ]
    everything = box.copy_out("/", str(tmp_path / "all"))
    assert {"cp /proc: is a file system of the kernel's: left out", "cp /dev/zero: is a device: left out"} < {
        *everything
    }
    assert (tmp_path / "all" / "bin" / "busybox").stat().st_size > 0


def test_a_tree_deeper_than_any_is_an_error(make: Make, rootfs: Path, tmp_path: Path) -> None:
    c = make("sleep", "1000", rootfs=str(rootfs), ephemeral=True)
    sh(c, "cd /tmp; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done")
    with pytest.raises(mc.Error, match="is below more than 200 directories"):
        c.copy_out("/tmp", str(tmp_path / "out"))
    with pytest.raises(mc.Error, match="is below more than 200 directories"):
        c.changes()


def test_a_directory_is_not_copied_into_itself(make: Make, rootfs: Path, tmp_path: Path) -> None:
    root = copy_of(rootfs, tmp_path / "root")
    (tmp_path / "file").touch()
    c = make("sleep", "1000", rootfs=str(root))
    for target in ("/tmp/new", "/tmp/new/deep"):
        assert c.copy_in(str(tmp_path), target) == [f"cp {root}{target}: is what it is copied into: left out"]
    assert (root / "tmp" / "new" / "deep" / "root" / "tmp" / "new" / "file").exists()


# ---- where


def test_into_mounts(make: Make, rootfs: Path, tmp_path: Path) -> None:
    volume, fixed = tmp_path / "volume", tmp_path / "fixed"
    volume.mkdir()
    fixed.mkdir()
    (tmp_path / "file").write_text("text")
    mounts = (
        mc.Mount("/volume", str(volume)),
        mc.Mount("/fixed", str(fixed), readonly=True),
        mc.Mount("/fs", type="tmpfs"),
    )
    c = make("sleep", "1000", rootfs=str(rootfs), mounts=mounts, read_only=True, ephemeral=True)
    for target in ("/volume", "/fs", "/dev/shm"):
        c.copy_in(str(tmp_path / "file"), target)
        assert sh(c, f"stat -c '%u:%g' {target}/file; cat {target}/file") == "0:0\ntext"
        c.copy_out(f"{target}/file", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == "text"
    at = (volume / "file").stat()
    assert (at.st_uid, at.st_gid, (volume / "file").read_text()) == (0, 0, "text")
    for target in ("/fixed", "/etc", "/"):
        with pytest.raises(mc.Error, match="read-only file system"):
            c.copy_in(str(tmp_path / "file"), target)
    assert not os.listdir(fixed)


def test_what_cannot_be_copied_leaves_nothing(make: Make, rootfs: Path, tmp_path: Path) -> None:
    mounts = (mc.Mount("/fs", type="tmpfs", size=65536), mc.Mount("/etc/hosts", str(tmp_path / "hosts")))
    (tmp_path / "hosts").write_text("mounted")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4096)
    c = make("sleep", "1000", rootfs=str(rootfs), mounts=mounts, ephemeral=True)
    with pytest.raises(mc.Error, match=r"cp /\S+/large: no space left on device"):
        c.copy_in(str(tmp_path / "large"), "/fs")
    with pytest.raises(mc.Error, match=r"cp hosts: is a mount point, and cannot be replaced"):
        c.copy_in(str(tmp_path / "large"), "/etc/hosts")
    assert sh(c, "ls -A /fs /etc | grep -e large -e mini; cat /etc/hosts") == "mounted"
    with pytest.raises(mc.Error, match="no such file or directory"):
        c.copy_out("/etc/none", str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["hosts", "large"]


def test_one_that_is_paused(make: Make, rootfs: Path, tmp_path: Path) -> None:
    c = make("sleep", "1000", rootfs=str(rootfs), ephemeral=True)
    c.pause()
    c.copy_in("/etc/passwd", "/tmp/x")
    c.copy_out("/tmp/x", str(tmp_path))
    assert (tmp_path / "x").read_bytes() == Path("/etc/passwd").read_bytes()
    assert [tuple(change) for change in c.changes()] == [("C", "/tmp"), ("A", "/tmp/x")]


def test_one_that_is_stopped(make: Make, rootfs: Path, tmp_path: Path, tree: Path) -> None:
    root = copy_of(rootfs, tmp_path / "root")
    (tmp_path / "volume").mkdir()
    mounts = (mc.Mount("/volume", str(tmp_path / "volume")),)
    c = make("sleep", "1000", rootfs=str(root), mounts=mounts)
    c.stop(0)
    os.chown(tree / "program", 1000, 1001)
    c.copy_in(str(tree), "/tmp/in", archive=True)
    c.copy_out("/tmp/in", str(tmp_path / "out"))
    assert looks(tmp_path / "out") == looks(tree) == looks(root / "tmp" / "in")
    with pytest.raises(mc.Error, match="is in a volume, which is there only while the container runs"):
        c.copy_in(str(tree), "/tmp/../volume")
    (root / "etc" / "away").symlink_to("/volume")
    with pytest.raises(mc.Error, match="is in a volume"):
        c.copy_out("/etc/away/.", str(tmp_path / "out"))
    c.start_again()
    assert sh(c, "stat -c '%u %g' /tmp/in/program /tmp/in/a") == "1000 1001\n0 0"
    fixed = make("true", rootfs=str(root), read_only=True)
    fixed.wait(60)
    with pytest.raises(mc.Error, match="its root file system is read-only"):
        fixed.copy_in(str(tree), "/tmp")
    gone = make("true", rootfs=str(root), ephemeral=True)
    gone.wait(60)
    for copy in (gone.copy_in, gone.copy_out):
        with pytest.raises(mc.Error, match=r"is not running \(exited\); what it wrote is gone \(ephemeral\)"):
            copy("/tmp", "/tmp/x")


# ---- who does harm


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("how", ["auto", "host", "stopped"])
def test_links_lead_nowhere_outside(make: Make, rootfs: Path, tmp_path: Path, kind: str, how: str) -> None:
    outside, root, given = make_outside(tmp_path / "outside"), copy_of(rootfs, tmp_path / "root"), tmp_path / "given"
    for place in ("a", "b/a", "b/c/a", "file", "magic"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        make_hostile(root / place, kind, outside, root)
    (tmp_path / "into").mkdir()
    (given / "a").mkdir(parents=True)
    (given / "passwd").write_text("given")
    (given / "a" / "passwd").write_text("given")
    c = make("sleep", "1000", rootfs=str(root), userns="auto" if how == "stopped" else how)
    if how == "stopped":
        c.stop(0)
    said: Counter[str] = Counter()
    with watched(outside):
        for path in ("a", "a/passwd", "a/.", "b", "b/a", "b/a/b/x", "b/c/a/passwd", "file", "proc/1/root/a", "b/../a"):
            for target in ("out", "into"):
                said[_outcome(c.copy_out, f"/{path}", str(tmp_path / target))] += 1
                said[_outcome(c.copy_out, f"/{path}", str(tmp_path / target), follow_link=True)] += 1
            for source in (given, given / "passwd", given / "."):
                said[_outcome(c.copy_in, str(source), f"/{path}")] += 1
            said[_outcome(c.copy_in, f"{given}/.", "/b/c")] += 1
    found = [path for path in (tmp_path / "into").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in found if path.read_text() == "outside"]
    assert said["works"]
    assert (tmp_path / "out").is_symlink()
    assert said["cp PATH is a symbolic link, and could be the container's (name where it leads)"]
    assert all(words.isprintable() for words in said)


def _outcome(copy: Callable[..., list[str]], source: str, target: str, **options: bool) -> str:
    try:
        copy(source, target, **options)
    except mc.Error as e:
        return re.sub(r"/\S+", "PATH", str(e))
    return "works"


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_directories_that_become_links_meanwhile(make: Make, rootfs: Path, tmp_path: Path, userns: str) -> None:
    """Both sides hold what a hostile container would want: a way to ``outside``."""
    outside, root, given = make_outside(tmp_path / "outside"), copy_of(rootfs, tmp_path / "root"), tmp_path / "given"
    (given / "a" / "b").mkdir(parents=True)
    for place in ("passwd", "a/passwd", "a/b/passwd"):
        (given / place).write_text("given")
    top = root / "top"
    swapped = [top / "a", top / "d" / "a", top / "d" / "b"]
    targets = (f"{'../' * 40}{outside}", str(outside), "../../../outside")
    for path, target in zip(swapped, targets, strict=True):
        (path / "b").mkdir(parents=True)
        (path / "passwd").write_text("inside")
        (path / "b" / "passwd").write_text("inside")
        path.with_name(f"{path.name}-link").symlink_to(target)
    (root / str(outside)[1:]).mkdir(parents=True)  # so that the links lead somewhere inside
    out = tmp_path / "out"
    out.mkdir()
    c = make("sleep", "1000", rootfs=str(root), userns=userns)
    said: Counter[str] = Counter()
    with watched(outside), swapping(*swapped):
        for i in range(COPIES):
            said[_outcome(c.copy_in, f"{given}/.", ("/top", "/top/d", "/top/a", "/top/d/a/b")[i % 4])] += 1
            said[_outcome(c.copy_out, ("/top", "/top/d/.", "/top/a/.", "/top/d/a")[i % 4], str(out))] += 1
    assert said["works"]
    assert any("not a directory" in words for words in said), said  # a link was met where a directory was
    texts = [path.read_text() for path in out.rglob("passwd") if not path.is_symlink() and path.is_file()]
    assert set(texts) <= {"inside", "given"}


# ---- on the command line


def test_the_command_line(make: Make, rootfs: Path, tmp_path: Path, minicontainer_cli: Run) -> None:
    c = make("sleep", "1000", rootfs=str(rootfs), ephemeral=True, name="copied")
    (tmp_path / "a:b").write_text("text")
    done = minicontainer_cli("cp", tmp_path / "a:b", "copied:/tmp/x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = minicontainer_cli("cp", "-a", f"{c.id[:12]}:/tmp/x", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out").read_text() == "text"
    done = minicontainer_cli("cp", "copied:/dev/null", tmp_path)
    assert (done.returncode, done.stderr) == (1, "minicontainer: cp /dev/null: is a device: left out\n")
    for words, says in (
        (("copied:/x", "copied:/y"), "between containers"),
        ((tmp_path, tmp_path), "neither SRC nor DEST is CONTAINER:PATH"),
        (("nobody:/x", tmp_path), "there is no such container"),
        (("copied:/nope\nx", tmp_path), "'/nope\\nx': no such file or directory"),
        ((tmp_path / "nope", "copied:/x"), "no such file or directory"),
        (("-", "copied:/x"), "no archive is streamed"),
    ):
        refusal(minicontainer_cli("cp", *words), says=[says])

"""The FUSE server and its host: changes there, mounts below the root, a user namespace; and many at once."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import userns
from box import until
from fileserver import DEVICE, Mounted, mounted, program, source
from filetree import EXCHANGE, Random, Tree, in_children, outcome
from tars import snapshot

__all__ = ["mounted", "program", "source"]  # fixtures
pytestmark = pytest.mark.needs("root")


def test_changes_of_the_host_are_seen(mounted: Mounted, source: Path) -> None:
    (source / "file").write_bytes(b"one")
    (source / "gone").touch()
    (source / "link").symlink_to("file")
    there = mounted.base
    assert (there / "file").read_bytes() == b"one"
    assert (there / "link").read_bytes() == b"one"
    assert (there / "gone").exists()
    with open(there / "file", "rb") as held:
        assert held.read() == b"one"
        (source / "file").write_bytes(b"another")
        (source / "file").chmod(0o600)
        (source / "gone").unlink()
        (source / "new").touch()
        (source / "link").unlink()
        (source / "link").symlink_to("new")
        assert (there / "new").exists()  # that there is no such name is never believed
        until(lambda: (there / "file").stat().st_size == 7)
        assert os.pread(held.fileno(), 100, 0) == b"another"
        until(lambda: not (there / "gone").exists())
        until(lambda: (there / "link").readlink() == Path("new"))
        assert stat.S_IMODE((there / "file").stat().st_mode) == 0o600
    os.replace(source / "new", source / "file")
    until(lambda: (there / "file").stat().st_size == 0)


def test_an_open_after_a_change_reads_it(mounted: Mounted, source: Path) -> None:
    """Also if the change is of the same size, and as soon as can be."""
    there = mounted.base / "file"
    for i in range(500):
        (source / "file").write_bytes(b"%03d" % i)
        assert there.read_bytes() == b"%03d" % i


def test_what_has_not_changed_is_not_read_again(mounted: Mounted, source: Path) -> None:
    content = os.urandom(1 << 20)
    (source / "file").write_bytes(content)
    before = os.stat(source / "file")

    def is_read() -> bool:
        was = mounted.bytes_read()
        assert (mounted.base / "file").read_bytes() == content
        return mounted.bytes_read() - was >= len(content)

    assert is_read()
    until(lambda: not is_read())
    content = os.urandom(1 << 20)
    with open(source / "file", "r+b") as file:
        file.write(content)
    os.utime(source / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert is_read()
    until(lambda: not is_read())
    (mounted.base / "file").write_bytes(content)
    assert is_read()


def test_a_name_that_has_come_meanwhile_is_opened_by_its_own_rights(mounted: Mounted, source: Path) -> None:
    """Once the client has seen that there is none: open(2) with O_CREAT finds the host's."""
    for _ in range(50):
        with os.scandir(mounted.base) as entries:
            assert not list(entries)
        (source / "file").write_bytes(b"content")
        with open(mounted.base / "file", "ab") as file:
            file.write(b"!")
        assert (source / "file").read_bytes() == b"content!"
        (mounted.base / "file").unlink()


def test_who_appends_where_the_host_does_too(mounted: Mounted, source: Path) -> None:
    with open(mounted.base / "log", "ab", buffering=0) as there, open(source / "log", "ab", buffering=0) as here:
        for i in range(20):
            there.write(b"there %d\n" % i)
            here.write(b"here %d\n" % i)
    expected = b"".join(b"there %d\nhere %d\n" % (i, i) for i in range(20))
    assert (source / "log").read_bytes() == expected
    until(lambda: (mounted.base / "log").stat().st_size == len(expected))
    assert (mounted.base / "log").read_bytes() == expected


@pytest.mark.parametrize(("uid", "mode"), [(0, 0o6755), (1000, 0o755)])
def test_set_user_id_that_the_client_has_not_seen(mounted: Mounted, source: Path, uid: int, mode: int) -> None:
    """Is cleared all the same when a user changes the file, and stays when root does."""
    changes: dict[str, tuple[Any, ...]] = {
        "write": (0, b"x", 0),
        "truncate": ("file", 3),
        "open": (0, "file", os.O_RDWR | os.O_TRUNC, 0),
        "fallocate": (0, 0, 0, 10_000),
        "copy_range": (0, 0, 1, 0, 10),
    }
    (source / "file").write_bytes(b"content")
    os.chown(source / "file", 1000, 1000)
    with Tree(mounted.base) as tree, Tree(source) as host:

        def change() -> None:
            for method, arguments in changes.items():
                host.chmod("file", 0o755)
                time.sleep(1.1)  # the client may believe what it knows for a second
                tree.open(0, "file", os.O_RDWR, 0)
                host.chmod("file", 0o6755)
                getattr(tree, method)(*arguments)
                assert stat.S_IMODE(os.stat(host.path("file")).st_mode) == mode, method
            tree.close_all()

        in_children(change, uid=uid, groups=(uid,))


def test_sockets_and_fifos_are_the_clients_own(mounted: Mounted, source: Path) -> None:
    """Between the client's processes they work; those of the host are names in the client, and nothing more."""
    os.mkfifo(source / "fifo")
    end = os.open(mounted.base / "fifo", os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(OSError) as caught:
        os.open(source / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    assert caught.value.errno == errno.ENXIO, "nobody reads the host's"
    os.write(end, b"x")
    assert os.read(end, 10) == b"x"
    os.close(end)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(mounted.base / "socket"))
        server.listen()
        client.connect(str(mounted.base / "socket"))
    assert stat.S_ISSOCK((source / "socket").lstat().st_mode)


# ---- directories


@pytest.mark.parametrize("kind", ["directory", "tmpfs"])
def test_large_directories(program: Path, source: Path, tmp_path: Path, kind: str) -> None:
    before = [f"mount -t tmpfs none {source}"] if kind == "tmpfs" else []
    with Mounted(program, tmp_path, before) as mounted:
        names = {f"{'n' * (i % 200)}{i}" for i in range(2000)}
        for name in names:
            (mounted.source / name).touch()
        assert set(os.listdir(mounted.base)) == names
        with os.scandir(mounted.base) as entries:
            assert {entry.name for entry in entries if entry.stat().st_size == 0} == names
        fd = os.open(mounted.base, os.O_RDONLY | os.O_DIRECTORY)
        assert set(os.listdir(fd)) == names == set(os.listdir(fd)), "read from the beginning again"
        (mounted.base / "new").touch()
        assert set(os.listdir(fd)) == {*names, "new"}
        os.close(fd)
        removed = set()
        with os.scandir(mounted.base) as entries:
            for entry in entries:  # others are not skipped
                os.unlink(entry.path)
                removed.add(entry.name)
        assert removed == {*names, "new"}
        assert os.listdir(mounted.source) == []


# ---- mounts below the root


def test_mounts_are_crossed(program: Path, source: Path, tmp_path: Path) -> None:
    for name in ("volume", "same", "read-only"):
        (source / name).mkdir()
    (source / "file").write_bytes(b"below")
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"other")
    before = [
        f"mount -t tmpfs none {source}/volume",
        f"mount --bind {other} {source}/same",
        f"mount --bind {other} {source}/read-only",
        f"mount -o remount,bind,ro {source}/read-only",
        f"mount --bind {other}/file {source}/file",
    ]
    with Mounted(program, tmp_path, before) as mounted, Tree(mounted.base) as tree:
        there = mounted.base
        (there / "volume/x").write_bytes(b"in the volume")
        assert (mounted.source / "volume/x").read_bytes() == b"in the volume"
        assert os.listdir(source / "volume") == []
        assert (there / "file").read_bytes() == b"other"
        assert os.statvfs(there / "volume").f_blocks == os.statvfs(mounted.source / "volume").f_blocks
        for directory, said in (("read-only", "EROFS"), ("same", None)):
            name = f"{directory}/file"
            assert outcome(tree, "setxattr", (name, "user.x", b"1", 0, True)) == said
            assert outcome(tree, "mkdir", (f"{directory}/d", 0o755)) == said
            assert outcome(tree, "symlink", ("x", f"{directory}/l")) == said
            assert outcome(tree, "bind", (f"{directory}/s",)) == said
            assert outcome(tree, "link", (name, f"{directory}/other", False)) == said
            assert outcome(tree, "rename", (name, f"{directory}/f", 0)) == said
            assert outcome(tree, "rename", (f"{directory}/{'file' if said else 'f'}", f"{directory}/file", 0)) is None
            assert outcome(tree, "unlink", (f"{directory}/{'file' if said else 'l'}",)) == said
            for method, *more in (("chmod", 0o600), ("chown", 1, 1, True), ("truncate", 4), ("utime", 1, 1, True)):
                result = outcome(tree, method, (name, *more))
                assert (result == said) if said else not isinstance(result, str), method
            result = outcome(tree, "open", (0, name, os.O_RDWR, 0))
            assert (result == said) if said else not isinstance(result, str)
        assert (there / "read-only/file").read_bytes() == b"othe"
        assert outcome(tree, "rename", ("same/file", "volume/file", 0)) == "EXDEV"
        assert outcome(tree, "rename", ("same", "other", 0)) == "EBUSY"
        assert outcome(tree, "rmdir", ("same",)) == "EBUSY"
        assert outcome(tree, "link", ("same/file", "file2", False)) == "EXDEV"


def test_a_file_system_without_access_control_lists(program: Path, source: Path, tmp_path: Path) -> None:
    """The client asks for them to decide whether a user may read a file that is not his own."""
    with Mounted(program, tmp_path, [f"mount -t ramfs none {source}"]) as mounted:
        for name, gid in (("file", 2000), ("other", 5000)):
            (mounted.base / name).write_bytes(b"content")
            os.chown(mounted.base / name, 0, gid)
            (mounted.base / name).chmod(0o640)
        with Tree(mounted.base) as tree:
            said = ("getxattr", ("file", "system.posix_acl_access", True))
            assert outcome(tree, *said) == "ENODATA"

            def try_both() -> None:
                assert outcome(tree, "open", (0, "other", os.O_RDONLY, 0)) == "EACCES"
                tree.open(0, "file", os.O_RDONLY, 0)

            in_children(try_both, uid=1000, groups=(1000, 2000))


@pytest.mark.needs("immutable")
def test_append_only_files(mounted: Mounted, source: Path) -> None:
    (source / "log").write_bytes(b"one")
    subprocess.run(["chattr", "+a", source / "log"], check=True)
    try:
        with Tree(mounted.base) as tree:
            for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_APPEND | os.O_TRUNC):
                assert outcome(tree, "open", (0, "log", flags, 0)) == "EPERM"
            tree.open(0, "log", os.O_RDWR | os.O_APPEND, 0)
            assert tree.write(0, b"two", 0) == 3
            assert tree.read(0, 100, 0) == b"onetwo"
            assert outcome(tree, "truncate", ("log", 0)) == "EPERM"
    finally:
        subprocess.run(["chattr", "-a", source / "log"], check=True)
    assert (source / "log").read_bytes() == b"onetwo"


INSIDE = """
set -e
umask 022
chmod 777 .
setpriv --reuid=1000 --regid=1000 --groups=2000 sh -c 'echo user > user; mkdir directory; mkfifo fifo; ln -s user link'
echo root > root
chown 3:4 root
chmod 4755 root
setpriv --reuid=1000 --regid=1000 --clear-groups sh -c '! echo more >> root'
setpriv --reuid=1000 --regid=1000 --clear-groups test -x root
! chown 70000 user
rm fifo
mv user directory/user
mkdir -m 2777 shared; chown 0:2000 shared
setpriv --reuid=1000 --regid=1000 --clear-groups sh -c 'echo > shared/file; mkdir shared/directory'
"""


def test_in_a_user_namespace(program: Path) -> None:
    """Whose ids are the client's: what is made there belongs to the mapped ids, and the server has no other rights."""
    place = Path(tempfile.mkdtemp(prefix="test-fileserver-"))
    first = int(userns.SHIFTED[0])
    try:
        place.chmod(0o755)
        shutil.copy(program, place / "fuse_mount")
        for name in ("source", "mount"):
            (place / name).mkdir()
            os.chown(place / name, first, first)
        os.mknod(place / "fuse", stat.S_IFCHR | 0o666, DEVICE.stat().st_rdev)
        (place / "fuse").chmod(0o666)
        (place / "source/foreign").write_bytes(b"of nobody in there")
        words = ["./fuse_mount", "fuse", str(place), ":", "sh", "-c", INSIDE]
        subprocess.run([*userns.inside(userns.SHIFTED), *words], check=True, cwd=place)
        owners = {
            str(path.relative_to(place / "source")): (path.lstat().st_uid - first, path.lstat().st_gid - first)
            for path in (place / "source").rglob("*")
        }
        assert owners.pop("foreign") == (-first, -first)
        assert owners.pop("root") == (3, 4)
        assert owners.pop("shared") == (0, 2000)
        assert {owners.pop(f"shared/{name}") for name in ("file", "directory")} == {(1000, 2000)}
        assert owners == dict.fromkeys(["directory", "directory/user", "link"], (1000, 1000))
        assert stat.S_IMODE((place / "source/root").stat().st_mode) == 0o4755
        assert stat.S_IMODE((place / "source/shared/directory").stat().st_mode) == 0o2755
    finally:
        shutil.rmtree(place)


# ---- many at once


def work(mount: Path, seed: int) -> None:
    """Random operations in a directory that others use, too; without mappings of what others truncate."""
    choose = Random(seed, without=["map"])
    with Tree(mount) as tree:
        for i in range(600):
            if i % 20 == 0:
                choose.look(tree)
            outcome(tree, *choose.operation())


def test_many_at_once(mounted: Mounted, source: Path) -> None:
    (mounted.base / "top").mkdir()
    in_children(*(partial(work, mounted.base, seed) for seed in range(6)))
    until(lambda: snapshot(mounted.base / "top", times=False) == snapshot(source / "top", times=False))


def test_exchanged_under_the_clients_hands(mounted: Mounted, source: Path) -> None:
    """The host swaps a directory and a link to another one, while the client walks: it never leaves the root."""
    outside = source.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"outside")
    (source / "directory").mkdir()
    (source / "directory/file").write_bytes(b"inside")
    (source / "link").symlink_to(outside)
    rng = random.Random(3)
    with Tree(source) as host:
        for _ in range(300):
            host.rename("directory", "link", EXCHANGE)
            for name in ("directory", "link"):
                with open(mounted.base / name / "file", "rb") as file:
                    assert file.read() in (b"inside", b"outside")
            if rng.random() < 0.1:
                (mounted.base / "new").touch()
                (mounted.base / "new").unlink()

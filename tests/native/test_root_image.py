"""The image of a root file system for ``root_image``: what it holds, when it is made anew, and what is refused."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from abilities import USER_ID
from box import until
from kernels import one_line
from supplies import Run

from minicontainer.container.cgroup import orphans
from minicontainer.container.machine import rootimage
from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.spec import Spec

pytestmark = [pytest.mark.needs("root")]
KINDS = [
    pytest.param("erofs", marks=pytest.mark.needs("mkfs.erofs")),
    pytest.param("ext4", marks=pytest.mark.needs("mke2fs")),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/minicontainer" / rootimage.KIND


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A ROOTFS with files of all kinds."""
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir/file").write_bytes(bytes(range(256)) * 50)
    os.link(root / "dir/file", root / "hard")
    os.symlink("/etc/" + "x" * 100, root / "link")
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown(root / "dir/file", 1000, 1001)
    os.chmod(root / "dir/file", 0o4751)
    os.utime(root / "dir/file", (1_000_000_000, 1_000_000_000))
    os.setxattr(root / "dir/file", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    root.chmod(0o755)
    return root


def spec_of(root: Path, kind: str, **fields: Any) -> Spec:
    return Spec(["true"], rootfs=str(root), isolation="kvm", ephemeral=True, root_image=kind, **fields)


def open_image(root: Path, kind: str, **fields: Any) -> tuple[int, int]:
    """Device and inode of the image."""
    fd = rootimage.open_image(spec_of(root, kind, **fields))
    try:
        info = os.fstat(fd)
        return info.st_dev, info.st_ino
    finally:
        os.close(fd)


def extract(image: Path, kind: str, to: Path) -> Path:
    """What the tools of the file system find in it; they extract no special files."""
    to.mkdir()
    commands = {
        "erofs": ["fsck.erofs", f"--extract={to}", "--preserve", "--overwrite", str(image)],
        "ext4": ["debugfs", "-R", f"rdump / {to}", str(image)],
    }
    subprocess.run(commands[kind], check=True, capture_output=True)
    return to


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_all_of_rootfs(tree: Path, cache: Path, tmp_path: Path, kind: str) -> None:
    open_image(tree, kind)
    seen = extract(next(cache.iterdir()), kind, tmp_path / "seen")
    assert (seen / "dir/file").read_bytes() == (tree / "dir/file").read_bytes()
    info, true = (seen / "dir/file").stat(), (tree / "dir/file").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (1000, 1001, 0o751)
    assert (info.st_size, int(info.st_mtime)) == (true.st_size, 1_000_000_000)
    assert os.readlink(seen / "link") == os.readlink(tree / "link")
    assert (seen / "hard").read_bytes() == (tree / "hard").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_made_once(tree: Path, cache: Path, kind: str) -> None:
    first = open_image(tree, kind)
    (image,) = cache.iterdir()
    os.utime(image, ns=(1, image.stat().st_mtime_ns))
    assert open_image(tree, kind) == first
    assert image.stat().st_atime_ns > 1, "it was used"
    assert stat.S_IMODE(image.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_written_to_is_made_again(tree: Path, cache: Path, kind: str) -> None:
    first = open_image(tree, kind)
    (image,) = cache.iterdir()
    image.write_bytes(bytes(image.stat().st_size))
    assert open_image(tree, kind) != first
    assert next(cache.iterdir()).read_bytes().strip(b"\0")


def same_size_and_time(file: Path) -> None:
    info = file.stat()
    file.write_bytes(bytes(info.st_size))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def another_link(link: Path) -> None:
    target = os.readlink(link)
    link.unlink()
    link.symlink_to(target[:-1] + "y")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content of the same size and time": lambda root: same_size_and_time(root / "dir/file"),
    "owner": lambda root: os.chown(root / "dir/file", 5, 5),
    "mode": lambda root: (root / "dir").chmod(0o700),
    "an attribute": lambda root: os.setxattr(root / "dir/file", "user.x", b"y"),
    "a name": lambda root: (root / "dir/file").rename(root / "dir/other"),
    "a new file": lambda root: (root / "dir/new").touch(),
    "a removed one": lambda root: (root / "fifo").unlink(),
    "a link": lambda root: another_link(root / "link"),
}


@pytest.mark.needs("mkfs.erofs")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_has_changed_counts(tree: Path, change: Callable[[Path], object]) -> None:
    first = open_image(tree, "erofs")
    change(tree)
    assert open_image(tree, "erofs") != first


@pytest.mark.needs("mkfs.erofs", "mke2fs")
def test_each_kind_has_its_own(tree: Path, cache: Path) -> None:
    open_image(tree, "erofs")
    open_image(tree, "ext4")
    assert len(list(cache.iterdir())) == 2


@pytest.mark.needs("mkfs.erofs")
def test_they_are_bounded(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_image(tree, "erofs")
    size = next(cache.iterdir()).stat().st_size
    monkeypatch.setattr(rootimage, "TOTAL_MAX", size + 1)
    (tree / "dir/new").touch()
    open_image(tree, "erofs")
    assert len(list(cache.iterdir())) == 1, "the older one has gone"
    monkeypatch.setattr(rootimage, "TOTAL_MAX", size - 4096)
    (tree / "dir/newer").touch()
    fd = rootimage.open_image(spec_of(tree, "erofs"))
    assert os.fstat(fd).st_size > size - 4096, "and one that is too large serves once"
    os.close(fd)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.needs("mkfs.erofs")
def test_an_image_that_others_can_write_is_not_used(tree: Path, cache: Path) -> None:
    first = open_image(tree, "erofs")
    next(cache.iterdir()).chmod(0o666)
    assert open_image(tree, "erofs") != first
    cache.chmod(0o777)
    with pytest.raises(Error) as caught:
        open_image(tree, "erofs")
    assert one_line(caught.value, "root_image erofs", str(cache), "is not ours alone", "XDG_CACHE_HOME")


@pytest.fixture
def disk(tmp_path: Path, cache: Path) -> Iterator[Path]:
    """A small file system that holds the cache."""
    cache.parent.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", cache.parent], check=True)
    yield cache
    subprocess.run(["umount", cache.parent], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing(tree: Path, disk: Path, kind: str) -> None:
    (tree / "large").write_bytes(os.urandom(4 << 20))
    with pytest.raises(Error) as caught:
        open_image(tree, kind)
    assert one_line(caught.value, f"root_image {kind}", "has ended with status")
    assert list(disk.iterdir()) == []
    (tree / "large").unlink()
    if kind == "erofs":  # an ext4 file system has more than a megabyte of its own
        open_image(tree, kind)
        assert len(list(disk.iterdir())) == 1


@pytest.mark.needs("mkfs.erofs")
def test_a_change_meanwhile_is_no_image(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = rootimage._make

    def make_and_change(*args: Any) -> None:
        make(*args)
        (tree / "meanwhile").touch()

    monkeypatch.setattr(rootimage, "_make", make_and_change)
    with pytest.raises(Error) as caught:
        open_image(tree, "erofs")
    assert one_line(caught.value, "root_image erofs", "has changed while its image was made")
    assert list(cache.iterdir()) == []


# ---- several starts, and one that is killed


@pytest.fixture(params=["without a name", "with a name"])
def draft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has files without a name, and on one that has none."""
    if request.param == "with a name":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # EISDIR


@pytest.mark.needs("mkfs.erofs")
def test_simultaneous_starts_make_it_once(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, draft: None
) -> None:
    make, made = rootimage._make, []

    def make_slowly(*args: Any) -> None:
        made.append(args)
        make(*args)

    monkeypatch.setattr(rootimage, "_make", make_slowly)
    with ThreadPoolExecutor(8) as pool:
        images = {image.result() for image in [pool.submit(open_image, tree, "erofs") for _ in range(8)]}
    assert (len(images), len(made), len(list(cache.iterdir()))) == (1, 1, 1)


MAKE = """
import os, sys
from minicontainer.container.machine import rootimage
from minicontainer.spec import Spec
if sys.argv[1] == "with a name":
    os.O_TMPFILE = os.O_DIRECTORY
rootimage._arguments = lambda *_: ("/bin/sh", "-c", "cat /tree/fifo")
rootimage.open_image(Spec(rootfs="root", isolation="kvm", ephemeral=True, root_image="erofs"))
"""


@pytest.mark.needs("mkfs.erofs")
@pytest.mark.parametrize("draft", ["without a name", "with a name"])
def test_one_that_is_killed_leaves_nothing(
    tree: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draft: str
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    process = subprocess.Popen([sys.executable, "-c", MAKE, draft], cwd=tmp_path)
    with open(tree / "fifo", "wb"):  # when the tool reads it
        process.kill()
        assert process.wait() == -signal.SIGKILL
        until(lambda: bool(orphans.clean()))  # a control group, as of each container
    assert len(list(cache.iterdir())) == (draft == "with a name")
    assert list((tmp_path / "tmp").iterdir()) == []
    open_image(tree, "erofs")
    assert len(list(cache.iterdir())) == 1, "and what has a name goes with the next one"


AS_USER = """
import os, sys
from minicontainer.container.machine import rootimage
from minicontainer.spec import Spec
for userns, to in (("auto", "private"), ("keep-id", "keep-id")):
    spec = Spec(rootfs="root", isolation="kvm", ephemeral=True, root_image="erofs", userns=userns)
    with open(rootimage.open_image(spec), "rb") as image, open(to, "wb") as copy:
        copy.write(image.read())
"""


@pytest.mark.needs("user", "userns", "mkfs.erofs")
def test_owners_are_those_that_an_ordinary_user_would_see(as_user: Run, user_directory: Path, tmp_path: Path) -> None:
    (user_directory / "root").mkdir()
    (user_directory / "root/mine").touch()
    (user_directory / "root/of-root").touch()
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", user_directory], check=True)
    os.chown(user_directory / "root/of-root", 0, 0)
    own = {"XDG_CACHE_HOME": f"{user_directory}/cache"}
    done = as_user([sys.executable, "-c", AS_USER], cwd=user_directory, env=own)
    assert (done.returncode, done.stderr) == (0, "")
    for userns, mine in (("private", 0), ("keep-id", USER_ID)):
        seen = extract(user_directory / userns, "erofs", tmp_path / userns)
        assert ((seen / "mine").stat().st_uid, (seen / "of-root").stat().st_uid) == (mine, 65534)


# ---- refused


def test_a_missing_tool_is_named_with_its_package(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootimage, "PLACES", ("/nonexistent",))
    for kind, tool, package in (("erofs", "mkfs.erofs", "erofs-utils"), ("ext4", "mke2fs", "e2fsprogs")):
        with pytest.raises(UnsupportedError) as caught:
            open_image(tree, kind)
        assert one_line(caught.value, f"root_image {kind}", f"there is no {tool}", f"apt install {package}")


@pytest.mark.needs("mkfs.erofs")
def test_an_owner_that_the_container_has_not(tree: Path) -> None:
    os.chown(tree / "dir", 5, 65536)
    with pytest.raises(SpecError) as caught:
        open_image(tree, "erofs")
    assert one_line(caught.value, "rootfs", "/dir belongs to 5:65536", "ids below 65536", "--userns host")
    with pytest.raises(SpecError, match="ids below 1001"):
        open_image(tree, "erofs", userns="100000:100000:1001")
    open_image(tree, "erofs", userns="host")


@pytest.mark.needs("mke2fs")
@pytest.mark.parametrize("spoil", [lambda root: root.chmod(0o700), lambda root: os.chown(root, 1, 1)])
def test_a_root_directory_that_mke2fs_cannot_make(tree: Path, spoil: Callable[[Path], object]) -> None:
    spoil(tree)
    with pytest.raises(SpecError) as caught:
        open_image(tree, "ext4")
    assert one_line(caught.value, "root_image ext4", "of root with mode 755", str(tree))


@pytest.mark.needs("mkfs.erofs")
def test_another_file_system_in_rootfs(tree: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "dir"], check=True)
    try:
        with pytest.raises(SpecError) as caught:
            open_image(tree, "erofs")
    finally:
        subprocess.run(["umount", tree / "dir"], check=True)
    assert one_line(caught.value, "rootfs", "another file system is mounted in it at /dir", "volume")


def test_a_cache_that_cannot_be_made(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    with pytest.raises(Error) as caught:
        open_image(tree, "ext4")
    assert one_line(caught.value, "root_image ext4", "/proc/minicontainer", "XDG_CACHE_HOME")


# ---- hostile


@pytest.mark.needs("mkfs.erofs")
def test_the_tool_reaches_nothing_else_of_the_host(
    tree: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of ROOTFS may make a link of a directory while the tool walks through it."""
    (tmp_path / "secret").write_text("of the host", encoding="utf-8")
    (tree / "dir/out").symlink_to(tmp_path / "secret")
    script = "cat /tree/dir/out || cat /etc/shadow || touch /tree/new || touch /usr/new || ls /root/.??* || exit 42"
    monkeypatch.setattr(rootimage, "_arguments", lambda *_: ("/bin/sh", "-c", script))
    with pytest.raises(Error) as caught:
        open_image(tree, "erofs")
    assert one_line(caught.value, "root_image erofs", "status 42")
    assert list(cache.iterdir()) == []

"""The FUSE server, mounted by this kernel: what is done in the mount is as it is done in a directory."""

from __future__ import annotations

import mmap
import os
import random
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fileserver import Mounted, mounted, program, source
from filetree import KEEP_SIZE, OPERATIONS, PUNCH_HOLE, Random, Tree, compare, in_children, outcome
from tars import snapshot

SEEDS, OPS = 4, 1500

__all__ = ["mounted", "program", "source"]  # fixtures
pytestmark = pytest.mark.needs("root")


def make_tops(mounted: Mounted, shadow: Path) -> None:
    for path in (mounted.base / "top", shadow / "top"):
        path.mkdir(parents=True)


def assert_equal_trees(mounted: Mounted, shadow: Path) -> None:
    top = snapshot(shadow / "top", times=False)
    assert snapshot(mounted.source / "top", times=False) == top
    assert snapshot(mounted.base / "top", times=False) == top


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_operations(mounted: Mounted, tmp_path: Path, seed: int) -> None:
    make_tops(mounted, tmp_path / "shadow")
    with Tree(mounted.base) as one, Tree(tmp_path / "shadow") as other:
        succeeded = compare(one, other, Random(seed), OPS)
    assert set(+succeeded) == set(OPERATIONS)
    assert_equal_trees(mounted, tmp_path / "shadow")


def as_user(function: Callable[[], object], umask: int = 0o026) -> None:
    """Calls it in a child that is an ordinary user with two supplementary groups."""
    in_children(function, uid=1000, groups=(1000, 2000, 3000), umask=umask)


@pytest.mark.parametrize("seed", range(100, 100 + SEEDS))
def test_random_operations_of_a_user(mounted: Mounted, tmp_path: Path, seed: int) -> None:
    """In a tree that root has made, with files and directories of several owners."""
    make_tops(mounted, tmp_path / "shadow")
    with Tree(mounted.base) as one, Tree(tmp_path / "shadow") as other:
        compare(one, other, Random(seed), OPS // 2)
        for tree in (one, other):
            tree.chmod("top", 0o777)
            tree.close_all()
        as_user(lambda: compare(one, other, Random(seed), OPS))
    assert_equal_trees(mounted, tmp_path / "shadow")


# ---- one thing at a time: in a tree of the server's and in an ordinary one, which must be equal after each step


@pytest.fixture
def trees(mounted: Mounted, tmp_path: Path) -> Iterator[Pair]:
    make_tops(mounted, tmp_path / "shadow")
    with Tree(mounted.base) as one, Tree(tmp_path / "shadow") as other:
        yield Pair(one, other)
    assert_equal_trees(mounted, tmp_path / "shadow")


class Pair:
    """Two trees: a method of Tree is called for both, which must have the same result, or error."""

    def __init__(self, one: Tree, other: Tree) -> None:
        self.trees = one, other

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            results = [outcome(tree, method, arguments) for tree in self.trees]
            assert results[0] == results[1], (method, arguments)
            return results[0]

        return call

    def make(self, name: str, data: bytes = b"", mode: int = 0o644) -> None:
        self.open(0, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self.write(0, data, 0)
        self.close(0)
        self.chmod(name, mode)


def put_and_cut(trees: Pair) -> None:
    """Changes the content of files in each way."""
    trees.open(0, "top/write", os.O_WRONLY, 0)
    assert trees.write(0, b"x", 0) == 1
    trees.open(0, "top/cut", os.O_RDWR, 0)
    trees.ftruncate(0, 2)
    trees.truncate("top/truncate", 1)
    trees.open(0, "top/open", os.O_WRONLY | os.O_TRUNC, 0)
    trees.open(0, "top/allocate", os.O_RDWR, 0)
    trees.fallocate(0, 0, 0, 10_000)
    trees.open(1, "top/copy", os.O_RDWR, 0)
    trees.copy_range(0, 1, 100, 0, 0)
    trees.chown("top/own", -1, 2000, True)
    if os.geteuid():
        trees.chown("top/none", -1, -1, True)
    for name in CHANGED:
        trees.stat(f"top/{name}", True)
        trees.getxattr(f"top/{name}", "security.capability", True)
    trees.close_all()


CHANGED = ("write", "cut", "truncate", "open", "allocate", "copy", "own", "none")
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # version 2, effective; CAP_NET_BIND_SERVICE


@pytest.mark.parametrize(("who", "mode"), [("root", 0o6777), ("user", 0o4777), ("user", 0o2777), ("user", 0o6777)])
def test_set_user_id_is_taken_away(trees: Pair, who: str, mode: int) -> None:
    """And capabilities of a file: by who changes it, if the kernel does so too. At once."""
    for name in CHANGED:
        trees.make(f"top/{name}", b"content", mode)
        trees.chown(f"top/{name}", 1000, 1000, True)
        trees.chmod(f"top/{name}", mode)
        trees.setxattr(f"top/{name}", "security.capability", CAPABILITY, 0, True)
    trees.chmod("top", 0o777)
    put_and_cut(trees) if who == "root" else as_user(lambda: put_and_cut(trees))


def make_files(trees: Pair) -> None:
    for where in ("top/plain", "top/shared", "top/other", "top/acl"):
        for mode in (0o600, 0o666, 0o755, 0o2755, 0o4777, 0o2767):
            trees.open(0, f"{where}/{mode:o}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
            trees.mkdir(f"{where}/d{mode:o}", mode)
            trees.stat(f"{where}/d{mode:o}", True)
        trees.mknod(f"{where}/file", stat.S_IFREG | 0o2777, 0)
        trees.mknod(f"{where}/fifo", stat.S_IFIFO | 0o666, 0)
        trees.symlink("target", f"{where}/link")
        trees.bind(f"{where}/socket")
        for name in ("file", "fifo", "link", "socket"):
            trees.stat(f"{where}/{name}", False)
        trees.temporary(0, where, f"{where}/temporary", 0)
    trees.close_all()


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_owners_and_modes_of_new_files(trees: Pair, umask: int) -> None:
    """In directories with set-group-id, of a group that the user is in or not; and with a default ACL."""
    for name, mode, gid in (("plain", 0o777, 0), ("shared", 0o2770, 2000), ("other", 0o2777, 5000), ("acl", 0o2777, 0)):
        trees.mkdir(f"top/{name}", 0o700)
        trees.chown(f"top/{name}", 0, gid, True)
        trees.chmod(f"top/{name}", mode)
    acl = access_list([(USER_OBJ, 6, NONE), (USER, 4, 3000), (GROUP_OBJ, 7, NONE), (MASK, 5, NONE), (OTHER, 1, NONE)])
    trees.setxattr("top/acl", "system.posix_acl_default", acl, 0, True)
    as_user(lambda: make_files(trees), umask)
    assert all(os.lstat(trees.trees[0].path(f"top/shared/{name}")).st_uid == 1000 for name in ("600", "fifo", "link"))


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER, NONE = 1, 2, 4, 8, 16, 32, 2**32 - 1  # acl(5)


def access_list(entries: Sequence[tuple[int, int, int]]) -> bytes:
    """The value of an attribute: (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_access_control_lists_decide(trees: Pair) -> None:
    trees.chmod("top", 0o755)
    base = [(USER_OBJ, 6, NONE), (GROUP_OBJ, 0, NONE), (MASK, 6, NONE), (OTHER, 0, NONE)]
    lists = {
        "user": (USER, 6, 1000),
        "reader": (USER, 4, 1000),
        "group": (GROUP, 6, 3000),
        "nobody": (USER, 6, 4000),
    }
    for name, entry in lists.items():
        trees.make(f"top/{name}", b"content", 0o2750)
        trees.setxattr(f"top/{name}", "system.posix_acl_access", access_list(sorted([*base, entry])), 0, True)
    trees.make("top/own", b"content", 0o2770)
    trees.chown("top/own", 1000, 5000, True)
    trees.chmod("top/own", 0o2770)

    def try_each() -> None:
        said = {name: trees.open(0, f"top/{name}", os.O_RDWR, 0) == "EACCES" for name in lists}
        assert said == {"user": False, "reader": True, "group": False, "nobody": True}
        trees.setxattr("top/own", "system.posix_acl_access", access_list(sorted(base)), 0, True)
        trees.stat("top/own", True)

    as_user(try_each)
    trees.chmod("top/user", 0o600)
    trees.getxattr("top/user", "system.posix_acl_access", True)
    trees.removexattr("top/group", "system.posix_acl_access", True)


def test_holes(trees: Pair) -> None:
    trees.open(0, "top/file", os.O_CREAT | os.O_RDWR, 0o600)
    trees.ftruncate(0, 1 << 20)
    for offset in (0, 100_000, 500_000):
        trees.write(0, b"x" * 10_000, offset)
    trees.fsync(0, False)
    assert trees.fallocate(0, KEEP_SIZE | PUNCH_HOLE, 503_808, 4096) is None
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        for offset in (0, 5000, 20_000, 99_000, 100_000, 250_000, 500_000, 504_000, 1 << 20, 1 << 21):
            trees.seek(0, offset, whence)
    assert trees.seek(0, 20_000, os.SEEK_DATA) == 98304


def test_devices_are_refused(trees: Pair) -> None:
    one, _ = trees.trees
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        assert outcome(one, "mknod", ("top/device", kind | 0o666, os.makedev(1, 3))) == "EPERM"
    trees.mknod("top/whiteout", stat.S_IFCHR, 0)
    trees.stat("top/whiteout", False)


def test_long_names_and_deep_paths(trees: Pair) -> None:
    assert trees.mkdir("top/" + "x" * 255, 0o755) is None
    assert trees.mkdir("top/" + "x" * 256, 0o755) == "ENAMETOOLONG"
    assert trees.symlink("x/" * 2000, "top/link") is None
    assert trees.readlink("top/link") == "x/" * 2000
    assert trees.symlink("x/" * 2048, "top/long") == "ENAMETOOLONG"
    path = "top"
    for i in range(150):
        path += f"/directory-{i}"
        trees.mkdir(path, 0o755)
    trees.make(path + "/file", b"deep")
    assert trees.listing(path) == [("file", False, False)]


def test_a_mapping_of_a_file_opened_for_appending(trees: Pair) -> None:
    trees.make("top/file", b"0123456789" * 1000)
    trees.open(0, "top/file", os.O_RDWR | os.O_APPEND, 0)
    assert trees.map(0, b"mapped") == b"mapped6789" + b"0123456789" * 999
    assert trees.write(0, b"appended", 0) == 8
    assert trees.map(0, b"again") == b"againd6789" + b"0123456789" * 999 + b"appended"


def test_large_transfers(trees: Pair) -> None:
    data = random.Random(1).randbytes(5_000_000)
    for flags in (os.O_RDWR, os.O_RDWR | os.O_DIRECT):
        trees.open(0, "top/file", flags | os.O_CREAT | os.O_TRUNC, 0o600)
        with mmap.mmap(-1, 3 << 20) as memory:  # aligned, for O_DIRECT
            memory[:] = data[: 3 << 20]
            for tree in trees.trees:
                assert os.pwrite(tree.fds[0], memory, 4096) == 3 << 20
                assert os.preadv(tree.fds[0], [memory], 8192) == (3 << 20) - 4096
                assert memory[: (3 << 20) - 4096] == data[4096 : 3 << 20]
                memory[:] = data[: 3 << 20]
    trees.open(0, "top/file", os.O_RDWR | os.O_TRUNC, 0)
    assert trees.write(0, data, 12_345) == len(data)
    for size, offset in ((1, 0), (4097, 12_344), (2_000_000, 99), (10_000_000, 1_000_001), (10, 10_000_000)):
        trees.read(0, size, offset)

"""The FUSE server at its limits and those of its host: descriptors, sizes, a full disk, a directory that goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from box import until
from fileserver import Mounted, mounted, program, source
from filetree import SLOTS, Tree, outcome

__all__ = ["mounted", "program", "source"]  # fixtures
pytestmark = pytest.mark.needs("root")


def test_without_descriptors_left(program: Path, source: Path, tmp_path: Path) -> None:
    """EMFILE is what the client sees, names are listed all the same, and it works again when some are free."""
    for i in range(300):
        (source / f"{i}").write_bytes(b"%d" % i)
    with Mounted(program, tmp_path, limit="-n 256") as mounted:
        for _ in range(2):  # with READDIRPLUS, too
            assert {entry.name for entry in os.scandir(mounted.base)} == {f"{i}" for i in range(300)}
        with Tree(mounted.base) as tree:
            results = {i: outcome(tree, "stat", (f"{i}", True)) for i in range(300)}
            known = [i for i, result in results.items() if result != "EMFILE"]
            assert 0 < len(known) < 300
            for i in range(20):  # what is known can be opened all the same
                tree.open(i % SLOTS, f"{known[-1 - i]}", os.O_RDONLY, 0)
        for i in range(300):
            (source / f"{i}").unlink()
        until(lambda: not any((mounted.base / f"{i}").exists() for i in range(300)))
        (mounted.base / "again").write_bytes(b"again")
        assert (source / "again").read_bytes() == b"again"


def test_a_client_that_forgets_inodes_can_have_any_number(
    program: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server asks for it. A remount drops the names that the kernel remembers of this file system."""
    names = [f"{i}" for i in range(1500)]
    for name in names:
        (source / name).write_text(name, encoding="ascii")
    monkeypatch.setenv("FORGET", "mount -o remount,rw mount")
    with Mounted(program, tmp_path, limit="-n 256") as mounted:
        assert [(mounted.base / name).read_text(encoding="ascii") for name in names] == names
        held = [os.open(mounted.base / name, os.O_PATH) for name in names[:100]]  # which it cannot forget
        assert [(mounted.base / name).stat().st_size for name in names] == [len(name) for name in names]
        with pytest.raises(OSError, match="Too many open files"):
            held.extend(os.open(mounted.base / name, os.O_PATH) for name in names)  # it has those that were opened
        for fd in held:
            os.close(fd)


def test_a_file_size_limit_is_an_error(program: Path, source: Path, tmp_path: Path) -> None:
    """And not the end of the server, by SIGXFSZ."""
    with Mounted(program, tmp_path, limit="-f 100") as mounted, Tree(mounted.base) as tree:
        tree.open(0, "file", os.O_CREAT | os.O_RDWR, 0o600)
        assert outcome(tree, "write", (0, b"x", 1 << 20)) == "EFBIG"
        assert outcome(tree, "ftruncate", (0, 1 << 20)) == "EFBIG"
        assert outcome(tree, "write", (0, b"x", 0)) == 1


def test_a_full_disk_is_an_error(program: Path, source: Path, tmp_path: Path) -> None:
    with (
        Mounted(program, tmp_path, [f"mount -t tmpfs -o size=64k none {source}"]) as mounted,
        Tree(mounted.base) as tree,
    ):
        tree.open(0, "file", os.O_CREAT | os.O_RDWR, 0o600)
        written = 0
        while (result := outcome(tree, "write", (0, bytes(4096), written))) == 4096:
            written += result
        assert result == "ENOSPC"
        assert 0 < written <= 64 << 10
        assert (mounted.source / "file").stat().st_size == written
        assert outcome(tree, "ftruncate", (0, 0)) is None
        assert outcome(tree, "write", (0, bytes(4096), 0)) == 4096


def test_a_directory_that_vanishes_under_it(mounted: Mounted, source: Path) -> None:
    """What is open stays, and nothing new can be made there."""
    (source / "file").write_bytes(b"content")
    with Tree(mounted.base) as tree, open(mounted.base / "file", "rb") as held:
        shutil.rmtree(source)
        until(lambda: outcome(tree, "stat", ("file", True)) == "ENOENT")
        assert held.read() == b"content"
        assert outcome(tree, "mkdir", ("new", 0o755)) == "ENOENT"
        assert outcome(tree, "open", (0, "other", os.O_CREAT | os.O_RDWR, 0o600)) == "ENOENT"
        assert os.listdir(mounted.base) == []

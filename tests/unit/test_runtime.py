"""The runtime directory: the caller's own, or an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from minicontainer import runtime
from minicontainer.errors import UnsupportedError


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> int:
    """An ordinary user, as far as this process is asked."""
    monkeypatch.delenv(runtime.VARIABLE)
    runtime._check.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 12345)
    return os.getuid() or 12345


def test_root_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(runtime.VARIABLE)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda *_, **__: True)
    assert runtime.directory() == "/run/minicontainer"


def test_root_s_where_run_is_not_root_s_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a user namespace, or of a host that is read-only: as an ordinary user's."""
    monkeypatch.delenv(runtime.VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    runtime._check.cache_clear()
    monkeypatch.setattr(runtime, "_is_usable_by_root", runtime._is_usable_by_root.__wrapped__)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "lstat", lambda _: os.stat_result((0o40700, 0, 0, 2, 0, 0, 0, 0, 0, 0)))
    assert runtime.directory() == f"{tmp_path}/minicontainer"


def test_what_a_process_of_root_s_makes_is_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though /run became read-only between two containers."""
    monkeypatch.delenv(runtime.VARIABLE)
    monkeypatch.setattr(runtime, "HOST", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime.directory() == str(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert runtime.directory() == str(tmp_path)


def test_a_directory_of_one_s_own(user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    if os.getuid() == 0:
        os.chown(tmp_path, user, user)
    assert runtime.directory() == f"{tmp_path}/minicontainer"


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_one_that_others_can_write_to(user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(mode)
    if os.getuid() == 0:
        os.chown(tmp_path, user, user)
    with pytest.raises(UnsupportedError, match="others can write there"):
        runtime.directory()


def test_somebody_else_s(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/")
    with pytest.raises(UnsupportedError, match="others can write there"):
        runtime.directory()


def test_none(user: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    with pytest.raises(UnsupportedError, match="no such file or directory"):
        runtime.directory()


# ---- $MINICONTAINER_ROOT


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory that is chosen, and not there yet."""
    path = tmp_path / "state"
    monkeypatch.setenv(runtime.VARIABLE, str(path))
    return path


def test_one_that_is_chosen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.directory() == str(root)
    assert root.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv(runtime.VARIABLE, f"{root}/")
    assert runtime.directory() == str(root)


def test_an_empty_word_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda *_, **__: True)
    monkeypatch.setenv(runtime.VARIABLE, "")
    assert runtime.directory() == "/run/minicontainer"
    assert runtime.suffix() == ""


@pytest.mark.parametrize(
    ("path", "reason"), [("state", "is no absolute path"), ("/proc/none", "no such file or directory")]
)
def test_one_that_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch, path: str, reason: str) -> None:
    monkeypatch.setenv(runtime.VARIABLE, path)
    with pytest.raises(UnsupportedError, match=f"^{runtime.VARIABLE} {path}: {reason}"):
        runtime.directory()


def test_a_chosen_one_that_others_can_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path))
    with pytest.raises(UnsupportedError, match="others can write there"):
        runtime.directory()


def test_the_mark_stays_and_is_its_own(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = runtime.mark()
    assert len(mark) == 8
    assert os.listdir(root) == ["mark"]
    runtime._mark.cache_clear()
    assert runtime.mark() == mark
    assert runtime.suffix() == f"-{mark}"
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "another"))
    assert runtime.mark() != mark


def test_the_mark_of_a_copy_is_another_and_one_that_moved_keeps_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, copy, moved = runtime.mark(), tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(root, copy)
    root.rename(moved)
    found = []
    for place in (copy, moved):
        monkeypatch.setenv(runtime.VARIABLE, str(place))
        found.append(runtime.mark())
    assert found[0] != mark
    assert found[1] == mark


def test_makers_of_one_mark_agree(root: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: runtime._mark.__wrapped__(str(root)), range(64)))) == 1
    assert os.listdir(root) == ["mark"]


@pytest.mark.parametrize("kind", ["text", "fifo", "link"])
def test_a_mark_that_is_none(root: Path, kind: str) -> None:
    root.mkdir(mode=0o700)
    if kind == "text":
        (root / "mark").write_text("../../etc", encoding="ascii")
    elif kind == "fifo":
        os.mkfifo(root / "mark")
    else:
        (root / "mark").symlink_to("/etc/hostname")
    with pytest.raises((UnsupportedError, OSError)):
        runtime.mark()


def test_nobody_else_can_walk_to_what_is_made(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        runtime.make_directory(f"{tmp_path}/a/b/c")
        runtime.make_directory(f"{tmp_path}/a/b/c")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*")] == [0o700, 0o700]
    (tmp_path / "a/file").touch()
    with pytest.raises(FileExistsError):
        runtime.make_directory(f"{tmp_path}/a/file")

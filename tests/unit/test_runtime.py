"""The runtime directory: the caller's own, or an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer import runtime
from minicontainer.errors import UnsupportedError


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> int:
    """An ordinary user, as far as this process is asked."""
    runtime._check.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 12345)
    return os.getuid() or 12345


def test_root_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime.directory() == "/run/minicontainer"


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

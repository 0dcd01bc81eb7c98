"""Fixtures for every test: a root file system, the command line, an ordinary user. A pytest plugin."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from abilities import KVM_CREATE_VM, USER, USER_ID, as_user_prefix

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def virtualisation_stays_on() -> Iterator[None]:
    """In the rig, keep one virtual machine open. The first VM enables SVM on every CPU and the last disables it; QEMU's
    TCG hangs about once in 200 times when that happens."""
    if os.environ.get("RIG") != "1" or not os.path.exists("/dev/kvm"):
        yield
        return
    with open("/dev/kvm", "rb+", buffering=0) as kvm:
        machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        yield
        os.close(machine)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with the host's static busybox, shared by all tests: do not write to it."""
    from minicontainer import rootfs as maker

    path = tmp_path_factory.mktemp("rootfs") / "busybox"
    maker.busybox(path)
    if os.environ.get("RIG") == "1":
        _open_to_all(path)
    return path


def _open_to_all(path: Path) -> None:
    """Let the ordinary user into pytest's directories of mode 0700."""
    for directory in path.parents:
        if directory != Path(tempfile.gettempdir()) and directory.is_relative_to(tempfile.gettempdir()):
            directory.chmod(directory.stat().st_mode | 0o055)


@pytest.fixture(scope="session")
def minicontainer_cli() -> Run:
    """The real command line: ``minicontainer_cli("run", ..., timeout=10)`` returns a CompletedProcess with text."""

    def run(*arguments: str | Path, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        return _run([sys.executable, "-m", "minicontainer", *map(str, arguments)], timeout=timeout, **options)

    return run


@pytest.fixture(scope="session")
def as_user() -> Run:
    """Runs a command as an ordinary user without any privilege: ``as_user(["id", "-u"])``. Only in the rig."""

    def run(command: Sequence[str | Path], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        own = {"HOME": f"/home/{USER}", "USER": USER, "LOGNAME": USER, "XDG_RUNTIME_DIR": f"/run/user/{USER_ID}"}
        options["env"] = {**os.environ, **own, **(options.get("env") or {})}
        return _run([*as_user_prefix(), *map(str, command)], timeout=timeout, **options)

    return run


@pytest.fixture
def user_directory() -> Iterator[Path]:
    """An empty directory of the ordinary user, on a file system that supports upper directories of overlays."""
    path = Path(tempfile.mkdtemp(prefix="test-", dir=f"/home/{USER}"))
    os.chown(path, USER_ID, USER_ID)
    yield path
    shutil.rmtree(path)


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """subprocess.run with text, captured output and an empty stdin by default."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    if not {"stdout", "stderr"} & options.keys():
        options["capture_output"] = True
    return subprocess.run(command, text=True, check=False, **options)

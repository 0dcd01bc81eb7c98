"""Claims on containers: held by descriptors, given up by whatever death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import runtime
from minicontainer.container.registry import ownership
from minicontainer.errors import Error, StepError

ONE, OTHER = "0123456789ab", "ffffffffffab"  # their claims are on one file


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state"
    monkeypatch.setenv(runtime.VARIABLE, str(path))
    return path


def test_held_until_the_last_copy_is_closed() -> None:
    assert not ownership.is_owned(ONE)
    first = ownership.acquire(ONE)
    second = os.dup(first)
    os.close(first)
    assert ownership.is_owned(ONE)
    assert not ownership.is_owned(OTHER)
    os.close(second)
    assert not ownership.is_owned(ONE)


def test_looking_takes_nothing_away() -> None:
    """As closing any descriptor of a file would with a lock of the process's."""
    claims = [ownership.acquire(ONE), ownership.acquire(OTHER)]
    for _ in range(2):
        assert ownership.is_owned(ONE)
        assert ownership.is_owned(OTHER)
    for claim in claims:
        os.close(claim)


def test_one_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "PATIENCE", 0.05)
    claim = ownership.acquire(ONE)
    assert ownership.try_acquire(ONE) == -1
    with pytest.raises(Error, match=f"^container {ONE}: another process looks after it"):
        ownership.acquire(ONE)
    os.close(claim)


def test_a_killed_owner_has_none() -> None:
    imports = "from minicontainer.container.registry import ownership"
    code = f"{imports}; ownership.acquire('{ONE}'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert ownership.is_owned(ONE)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not ownership.is_owned(ONE)


def test_an_inherited_one_is_held(root: Path) -> None:
    """As by a monitor, after its maker's end."""
    claim = ownership.acquire(ONE)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[claim]) as heir:
        os.close(claim)
        assert ownership.is_owned(ONE)
        heir.communicate(b"\n")
    assert not ownership.is_owned(ONE)


def test_a_state_directory_that_cannot_be_written_to(root: Path) -> None:
    ownership.is_owned(ONE)
    (root / "owners").write_bytes(b"")
    with pytest.raises(StepError, match="the state directory has to be writable"):
        ownership.acquire(ONE)

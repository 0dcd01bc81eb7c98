"""``compare microvm``: its contenders. It boots nothing here; figures come from the command itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from minicontainer.compare import microvm
from minicontainer.compare.linux import QEMU

pytestmark = pytest.mark.needs("root")


def test_each_contender_is_a_command_that_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microvm, "MAKER", "sh")  # it is not executed here
    commands = microvm._commands("/boot/vmlinuz", str(tmp_path), "256M")
    assert {*commands, QEMU} == set(microvm.NAMES)
    assert len(list((tmp_path / "root/small").iterdir())) == 1000
    for name in set(commands) - {QEMU}:
        at = commands[name].index("run") + 1
        words = [*commands[name][:at], "--dry-run", *commands[name][at:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert ("MC_VMM" in done.stdout or "vmm" in done.stdout) == ("kvm" in commands[name])


def test_what_cannot_be_measured_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microvm, "MAKER", "no-such-tool")
    assert microvm.IMAGE_FILES not in microvm._commands("/boot/vmlinuz", str(tmp_path), "256M")
    assert "erofs-utils" in microvm.UNABLE[microvm.IMAGE_FILES]

"""Detached containers whose program is a monitor that makes no machine (tests/native/fakevmm.c): no KVM, no kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minicontainer as mc
from minicontainer.container.machine import start
from minicontainer.linux.files import sealed_memfd
from minicontainer.microvm.devices import ROOT_IMAGE
from minicontainer.native import lib

ROOT = Path(__file__).resolve().parents[1]
Container = mc.Container


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("fake") / "fakevmm")
    sources = [ROOT / name for name in ("tests/native/fakevmm.c", "csrc/vmm/report.c", "csrc/vmm/confine.c")]
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", f"-I{ROOT}/csrc", "-pthread", "-o", path]
    subprocess.run([*command, *sources], check=True)
    return path


@pytest.fixture
def pretend(program: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Machines do what a word says, from now on."""

    def change(word: str) -> None:
        def inputs(_: mc.Spec, _devices: Any, stack: Any) -> dict[str, int]:
            fds = {"machine": sealed_memfd("machine", word.encode()), "program": os.open(program, os.O_RDONLY)}
            for name in ("kvm", ROOT_IMAGE, *(f"file-{i}" for i in range(lib.MC_VMM_FILES))):
                fds[name] = os.open("/dev/null", os.O_RDONLY)
            for fd in fds.values():
                stack.callback(os.close, fd)
            return fds

        monkeypatch.setattr(start, "_inputs", inputs)

    return change


@pytest.fixture
def fake(pretend: Callable[[str], None], rootfs: Path) -> Iterator[Callable[..., Container]]:
    """Makes a detached container whose machine does what a word says; removes it at the end."""
    made: list[Container] = []

    def make(word: str, *args: str, how: Callable[..., Container] = Container.start, **options: Any) -> Container:
        pretend(word)
        made.append(how(args or ("true",), rootfs=str(rootfs), isolation="kvm", **options))
        return made[-1]

    yield make
    for container in made:
        if os.path.isdir(container.directory):
            container.remove(force=True)

"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from kernels import Load

from minicontainer.kvm import boot
from minicontainer.kvm.boot.kernel import Entry, Kernel
from minicontainer.kvm.memory import GuestMemory

# A loaded machine must not make tests fail.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """``load(content, "32M", mode=..., ...)``: how it is entered, and the memory."""
    made: list[GuestMemory] = []

    def make(content: bytes | Path, memory: int | str = "32M", **options: Any) -> tuple[Entry, GuestMemory]:
        path = content if isinstance(content, Path) else tmp_path / "kernel"
        if isinstance(content, bytes):
            path.write_bytes(content)
        made.append(GuestMemory(memory))
        with Kernel(str(path)) as kernel:
            return boot.load(kernel, made[-1], boot.Options(**options)), made[-1]

    yield make
    for memory in made:
        memory.close()


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    path = tmp_path / "initrd"
    path.write_bytes(b"an initrd" * 1000)
    return path

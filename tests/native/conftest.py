"""Fixtures of the native tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import Box, Operator, copy_of
from supplies import Run

from minicontainer.detached.container import Container


@pytest.fixture(scope="session")
def box(minicontainer_cli: Run, rootfs: Path) -> Box:
    """Runs containers of the shared root file system, which is to be read only."""
    return Box(minicontainer_cli, rootfs)


@pytest.fixture
def own_box(minicontainer_cli: Run, rootfs: Path, tmp_path: Path) -> Box:
    """Runs containers of a root file system that this test may change."""
    return Box(minicontainer_cli, copy_of(rootfs, tmp_path / "root"))


@pytest.fixture
def make(rootfs: Path) -> Iterator[Callable[..., Container]]:
    """Starts detached containers that are removed at the end."""
    made: list[Container] = []

    def start(*args: str, **options: Any) -> Container:
        made.append(Container.start(args, **{"rootfs": str(rootfs), **options}))
        return made[-1]

    yield start
    for container in made:
        if os.path.isdir(container.directory):
            container.remove(force=True)


@pytest.fixture
def op(minicontainer_cli: Run, rootfs: Path) -> Iterator[Operator]:
    operator = Operator(minicontainer_cli, rootfs)
    yield operator
    minicontainer_cli("rm", "-f", *operator.ids) if operator.ids else None

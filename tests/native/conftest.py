"""Fixtures of the native tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from box import Box, copy_of
from supplies import Run


@pytest.fixture(scope="session")
def box(minicontainer_cli: Run, rootfs: Path) -> Box:
    """Runs containers of the shared root file system, which is to be read only."""
    return Box(minicontainer_cli, rootfs)


@pytest.fixture
def own_box(minicontainer_cli: Run, rootfs: Path, tmp_path: Path) -> Box:
    """Runs containers of a root file system that this test may change."""
    return Box(minicontainer_cli, copy_of(rootfs, tmp_path / "root"))

"""Compiles containers to files, and runs the files as a user does."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from box import Done, Word, refusal
from supplies import Run


class Compiler:
    """Writes files below a directory, for the root file system ``rootfs``."""

    def __init__(self, run: Run, rootfs: Path, directory: Path) -> None:
        self._run, self.rootfs, self.directory = run, rootfs, directory
        self._names: Iterator[int] = itertools.count()

    def write(self, *words: Word, options: Sequence[object] = (), rootfs: Word | None = None, **more: Any) -> Path:
        """The file of a container; the compilation must succeed without messages."""
        path = self.directory / f"file-{next(self._names)}"
        root = self.rootfs if rootfs is None else rootfs
        done = self._run("compile", "-o", path, *options, root, *words, **more)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
        return path

    def refused(self, *words: Word, options: Sequence[object] = (), says: Sequence[str] = (), **more: Any) -> str:
        """The one-line error with which the compilation is refused; no file is left."""
        path = self.directory / f"file-{next(self._names)}"
        line = refusal(self._run("compile", "-o", path, *options, self.rootfs, *words, **more), says=says)
        assert not list(self.directory.glob(f"{path.name}*"))
        return line


@pytest.fixture
def compiler(minicontainer_cli: Run, rootfs: Path, tmp_path: Path) -> Compiler:
    """Compiles containers of the shared root file system, which tests must not change."""
    return Compiler(minicontainer_cli, rootfs, tmp_path)


def run(file: Path, *args: Word, timeout: float = 60, **options: Any) -> Done:
    """``./file ARG...`` with an empty stdin."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    words = [str(file), *map(str, args)]
    return subprocess.run(words, text=True, check=False, capture_output=True, timeout=timeout, **options)


def stale(file: Path, *says: str, **options: Any) -> str:
    """The one line with which a file refuses to run."""
    return refusal(run(file, **options), says=says)

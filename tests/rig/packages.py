"""Debian packages: downloaded by apt-get, with whatever proxy and mirrors apt is configured for, and never installed.

A package of another release or architecture than this machine's comes from the same mirror, by lists of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class RigError(Exception):
    """The rig cannot start; the text says why."""


class Origin(NamedTuple):
    """A release ("" for the machine's own) and an architecture of Debian's."""

    release: str = ""
    architecture: str = "amd64"


def call(*command: str, cwd: Path | None = None) -> str:
    """Runs a command for its output; RigError with what it said when it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RigError(f"{command[0]} is missing") from None
    if done.returncode:
        raise RigError(f"{' '.join(command)} failed ({done.returncode}):\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


class Apt:
    """apt for one origin; what it needs for another than the machine's own is below ``directory``."""

    def __init__(self, origin: Origin, directory: Path) -> None:
        self.options: list[str] = []
        self._own = origin == Origin()
        if not self._own:
            self._set_up(origin, directory / f"{origin.release}-{origin.architecture}")

    def _set_up(self, origin: Origin, directory: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True)
        sources = directory / "sources.list"
        sources.write_text(f"deb {_mirror()} {origin.release} main\n", encoding="ascii")
        values = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": directory / "lists",
            "Dir::Cache": directory / "cache",
            "APT::Architecture": origin.architecture,
            "APT::Architectures": origin.architecture,
            "Acquire::Languages": "none",
        }
        self.options = [word for name, value in values.items() for word in ("-o", f"{name}={value}")]
        self._update()

    def _update(self) -> None:
        root = [] if not self._own or os.geteuid() == 0 else ["sudo", "-n"]
        call(*root, "apt-get", "-q", "update", *self.options)

    def download(self, package: str, begin: str, into: Path) -> Path:
        """Downloads the package; with ``begin``, the one that it depends on whose name begins so. Makes apt's lists
        anew if it cannot otherwise."""
        try:
            return self._download_once(package, begin, into)
        except RigError:
            self._update()
            return self._download_once(package, begin, into)

    def _download_once(self, package: str, begin: str, into: Path) -> Path:
        names = [package]
        if begin:
            lines = call("apt-cache", "depends", package, *self.options).splitlines()
            names = [line.split()[1] for line in lines if line.strip().startswith(f"Depends: {begin}")]
        if not names:
            raise RigError(f"apt's lists have no {package}")
        call("apt-get", "download", "-q", names[0], *self.options, cwd=into)
        return next(into.glob("*.deb"))


def _mirror() -> str:
    """Where the machine's own main packages come from."""
    targets = call("apt-get", "indextargets", "--format", "$(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    found = [line.split(" ", 1)[1] for line in targets.splitlines() if line.startswith("main ")]
    if not found:
        raise RigError("apt has no source of Debian's main packages (/etc/apt/sources.list)")
    return found[0]


def extract(package: Path, into: Path, is_wanted: Callable[[str], bool]) -> None:
    """The files that are wanted; those below usr/ as if they were not."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./").removeprefix("usr/")
                if member.isfile() and is_wanted(name):
                    _copy_member(archive, member, into / name)
        unpacking.stdout.read()  # padding; a closed pipe would kill dpkg-deb
    if unpacking.returncode:
        raise RigError(f"{package.name} cannot be unpacked")


def _copy_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None  # it is a file
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(content, file)

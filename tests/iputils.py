"""The ``ping`` of iputils with its libraries: the host's, or Debian's, downloaded and not installed."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

PACKAGE = "iputils-ping"
DEPENDS = (
    "--recurse",
    *(f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")),
)
NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # struct vfs_cap_data of linux/capability.h: CAP_NET_RAW+ep


def why_not() -> str:
    """Why there is none; "" where there is."""
    try:
        files()
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        return f"no ping of iputils, and {PACKAGE} cannot be downloaded: {said.splitlines()[-1]}"
    return ""


@cache
def files() -> dict[str, Path]:
    """Path in a root file system -> file: the program, its loader, and its libraries, where any loader looks."""
    found = shutil.which("ping")
    if found and "iputils" in _output(found, "-V"):
        program, libraries = Path(found), ""
    else:
        top = _unpacked()
        program = next(path for path in (top / "bin/ping", top / "usr/bin/ping") if path.exists())
        libraries = ":".join(sorted({str(path.parent) for path in top.rglob("lib*.so.*")}))
    lines = _output("ldd", str(program), LD_LIBRARY_PATH=libraries)
    paths = [Path(path) for path in re.findall(r"(/\S+) \(0x", lines)]
    found_files = {f"lib/{path.name}": path for path in paths if path.name.startswith("lib")}
    loader = next(path for path in paths if path.name.startswith("ld"))
    return {"bin/ping.iputils": program, str(loader).lstrip("/"): loader, **found_files}


def install(root: Path, *, capability: bool) -> None:
    """Puts it into a root file system, with the file capability that Debian gives it, or without."""
    for name, source in files().items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)
    if capability:
        os.setxattr(root / "bin/ping.iputils", "security.capability", NET_RAW)


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """Removed with its last reference, when Python ends."""
    return tempfile.TemporaryDirectory(prefix="iputils-")


def _unpacked() -> Path:
    top = Path(_directory().name)
    packages = [line for line in _output("apt-cache", "depends", *DEPENDS, PACKAGE).splitlines() if line[:3] == "lib"]
    _output("apt-get", "download", "-q", PACKAGE, *packages, cwd=top)
    for package in top.glob("*.deb"):
        _output("dpkg-deb", "-x", str(package), str(top))
        package.unlink()
    return top


def _output(*command: str, cwd: Path | None = None, **environment: str) -> str:
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=True, timeout=120).stdout

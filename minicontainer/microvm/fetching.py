"""Fetches a kernel of the host's distribution: by apt-get, with the mirrors and keys that it is configured for, and
without installing it."""

from __future__ import annotations

import os
import shutil
import subprocess

from minicontainer.errors import Error, SpecError, UnsupportedError, sentence
from minicontainer.microvm import adding, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian's kernel for clouds, Ubuntu's for virtual machines; then their general ones.
PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64", "linux-image-generic")
# A kernel is in the package itself, or in those of these names that it depends on: linux-image-amd64 depends on the
# package of a version, and some distributions have modules, or the image, in packages of their own.
PARTS = ("linux-image-", "linux-binary-", "linux-modules-")
LEFT_OUT = ("linux-modules-extra-",)  # Ubuntu's drivers of hardware
PARTS_MAX = 8
UPDATE = "apt-get update renews its lists"
OPTIONS = ("-q", "-o", "APT::Sandbox::User=root")  # apt's own user may not write to the directory of kernels


def fetch(package: str | None = None, *, name: str | None = None, default: bool = False) -> store.Registered:
    """Downloads a package with a kernel and registers that (adding.add); one that was fetched before is left unchanged.
    ``package``: else the first of PACKAGES that the host's distribution has. Error: apt-get cannot download it."""
    if name is not None:
        store.check_name(name)
    if package is not None and not _is_package(package):
        raise SpecError("package", package, "is no name of a package", "such as linux-image-cloud-amd64")
    packages = _parts(package or _first())
    source = " ".join(_files(packages))
    entry = next((e for e in store.registered() if e.source == source and name in (None, e.name)), None)
    if entry is None:
        if name is not None:
            store.check_free(name)
        with store.part() as part:
            return adding.from_tree(_unpacked(packages, part), part, source=source, name=name, default=default)
    if default:
        store.make_default(entry.name)
        entry = store.find(entry.name)
    return entry


def _is_package(name: str) -> bool:
    """Whether it may be the name of a package (Debian Policy, 5.6.7)."""
    return len(name) > 1 and name[0].isalnum() and all(c.isascii() and (c.isalnum() or c in "+-.") for c in name)


def _first() -> str:
    """The first of PACKAGES that apt knows."""
    for package in PACKAGES:
        if _depends(package) is not None:
            return package
    raise UnsupportedError("kernel", None, f"apt's lists have none of {', '.join(PACKAGES)}", UPDATE)


def _parts(package: str) -> list[str]:
    """The package, and those that it depends on and that hold a part of its kernel."""
    found, waiting = [package], [package]
    while waiting and len(found) <= PARTS_MAX:
        for below in _depends(waiting.pop(0)) or ():
            if below.startswith(PARTS) and not below.startswith(LEFT_OUT) and below not in found:
                found.append(below)
                waiting.append(below)
    return found


def _depends(package: str) -> list[str] | None:
    """What a package depends on; None: apt knows none of this name."""
    done = _run("apt-cache", "depends", package)
    if done.returncode:
        return None
    lines = (line.strip().lstrip("|") for line in done.stdout.splitlines())
    return [line.removeprefix("Depends: ") for line in lines if line.startswith("Depends: ")]


def _files(packages: list[str]) -> Iterator[str]:
    """The names of the files that would be downloaded, which have the packages' versions."""
    for line in _apt_get(packages, "--print-uris").splitlines():
        words = line.split()
        if len(words) > 2 and words[0].startswith("'"):
            yield words[1]


def _unpacked(packages: list[str], part: str) -> str:
    """A directory below ``part`` with the files of the packages; the packages themselves are removed."""
    debs, tree = f"{part}/packages", f"{part}/tree"
    os.mkdir(debs)
    os.mkdir(tree)
    _apt_get(packages, cwd=debs)
    for deb in sorted(os.listdir(debs)):
        done = _run("dpkg-deb", "-x", f"{debs}/{deb}", tree)
        if done.returncode:
            raise Error(sentence("package", deb, f"cannot be unpacked: {_said(done)}"))
    shutil.rmtree(debs)
    return tree


def _apt_get(packages: list[str], *options: str, cwd: str | None = None) -> str:
    done = _run("apt-get", "download", *OPTIONS, *options, *packages, cwd=cwd)
    if done.returncode:
        raise Error(sentence("package", packages[0], f"apt-get cannot download it: {_said(done)}", UPDATE))
    return done.stdout


def _run(program: str, *arguments: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            [program, *arguments], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError:
        hint = "minicontainer kernel add FILE takes a kernel from anywhere"
        raise UnsupportedError(program, None, "is not in PATH", hint) from None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The first error that a program has printed, without apt's mark of errors."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E: ")] or lines[-1:]
    return errors[0].removeprefix("E: ").rstrip(".") if errors else f"it ended with {done.returncode}"

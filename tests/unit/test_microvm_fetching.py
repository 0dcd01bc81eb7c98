"""``kernel fetch`` with programs in the place of apt's: what is asked for, what is registered, what is said."""

from __future__ import annotations

import os
from pathlib import Path

import linuxes
import pytest
from kernels import one_line

from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.microvm import fetching, store

APT_CACHE = """#!/bin/sh
[ "$1" = depends ] && [ -f "$REPO/$2" ] || { echo "E: No packages found" >&2; exit 100; }
echo "$2"; sed 's/^/  Depends: /' "$REPO/$2"
echo "  Suggests: linux-image-other"; echo "  Depends: <linux-image-virtual>"
"""
APT_GET = """#!/bin/sh
[ "$1" = download ] || exit 99
shift; printed=
for word; do
    case "$word" in
    --print-uris) printed=1 ;;
    -* | APT::*) ;;
    *)
        [ -f "$REPO/$word" ] || { echo "W: x" >&2; echo "E: Unable to locate package $word." >&2; exit 100; }
        if [ "$printed" ]; then echo "'http://x/$word' ${word}_1.deb 5 SHA256:0"
        else echo "$word" >> "$REPO/downloads"; [ ! -f "$REPO/broken" ] || exit 7; echo "$word" > "${word}_1.deb"; fi ;;
    esac
done
"""
DPKG_DEB = """#!/bin/sh
[ "$1" = -x ] && [ -f "$2" ] || exit 99
tree="$REPO/tree-$(cat "$2")"
[ ! -f "$REPO/damaged" ] || { echo "dpkg-deb: error: bad magic" >&2; exit 2; }
[ ! -d "$tree" ] || cp -r "$tree/." "$3"
"""


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file for each package, which lists what it depends on."""
    (tmp_path / "state").mkdir(0o700)
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "state"))
    for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("REPO", str(tmp_path / "repo"))
    repo = tmp_path / "repo"
    repo.mkdir()
    return repo


def debian(repo: Path, release: str = linuxes.RELEASE, *, meta: str = "linux-image-cloud-amd64", usr: str = "") -> None:
    (repo / meta).write_text(f"linux-image-{release}\nkmod\n")
    (repo / f"linux-image-{release}").write_text("linux-base\n")
    linuxes.tree(repo / f"tree-linux-image-{release}", release, usr=usr, listed=False)


def downloads(repo: Path) -> list[str]:
    file = repo / "downloads"
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("usr", ["", "usr/"])
def test_debian_s_cloud_kernel_is_the_first_choice(repository: Path, usr: str) -> None:
    debian(repository, usr=usr)
    debian(repository, "6.1.0-9-amd64", meta="linux-image-amd64")
    entry = fetching.fetch(default=True)
    assert (entry.name, entry.is_default, entry.kernel.lacks) == (linuxes.RELEASE, True, ())
    assert entry.source == f"linux-image-cloud-amd64_1.deb linux-image-{linuxes.RELEASE}_1.deb"
    place = Path(store.directory(), entry.name)
    assert sorted(path.name for path in place.iterdir()) == ["config", "kernel", "kernel.json", "modules"]
    assert (place / "modules/kernel/fs/fuse/virtiofs.ko").exists()
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_ubuntu_has_modules_in_a_package_of_their_own(repository: Path) -> None:
    debian(repository, meta="linux-image-virtual")
    image = repository / f"linux-image-{linuxes.RELEASE}"
    image.write_text(f"linux-modules-{linuxes.RELEASE}\n")
    (repository / "linux-image-virtual").write_text(f"{image.name}\nlinux-modules-extra-{linuxes.RELEASE}\n")
    (repository / f"linux-modules-{linuxes.RELEASE}").write_text("")
    both = repository / f"tree-{image.name}"
    modules = repository / f"tree-linux-modules-{linuxes.RELEASE}"
    modules.mkdir()
    (both / "lib").rename(modules / "lib")
    entry = fetching.fetch()
    assert entry.kernel.lacks == ()
    assert downloads(repository) == ["linux-image-virtual", image.name, f"linux-modules-{linuxes.RELEASE}"]


def test_a_package_that_is_named(repository: Path) -> None:
    debian(repository)
    entry = fetching.fetch(f"linux-image-{linuxes.RELEASE}", name="mine")
    assert (entry.name, entry.source) == ("mine", f"linux-image-{linuxes.RELEASE}_1.deb")


def test_what_was_fetched_is_not_downloaded_again(repository: Path) -> None:
    debian(repository)
    first = fetching.fetch()
    again = fetching.fetch(default=True)
    assert again == first._replace(is_default=True)
    assert len(downloads(repository)) == 2
    assert fetching.fetch(name="other").name == "other"
    with pytest.raises(SpecError, match="is taken"):
        fetching.fetch(f"linux-image-{linuxes.RELEASE}", name="other")
    assert len(downloads(repository)) == 4


def test_packages_that_depend_on_each_other(repository: Path) -> None:
    debian(repository)
    (repository / f"linux-image-{linuxes.RELEASE}").write_text("linux-image-cloud-amd64\n")
    assert fetching.fetch().name == linuxes.RELEASE


def refused(package: str | None, kind: type[Error], *words: str) -> None:
    with pytest.raises(kind) as caught:
        fetching.fetch(package)
    assert one_line(caught.value, *words)
    directory = Path(store.directory())
    assert not directory.exists() or list(directory.iterdir()) == []


def test_what_cannot_be_had_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "-x", "a b", "../x", "x;y"):
        refused(name, SpecError, "package", "is no name of a package")
    refused(None, UnsupportedError, "apt's lists have none of linux-image-cloud-amd64", "apt-get update")
    refused("linux-x", Error, "package linux-x: apt-get cannot download it: Unable to locate package linux-x (apt-get ")
    (repository / "hello").write_text("")
    refused("hello", Error, "package hello_1.deb: holds no kernel")
    debian(repository)
    (repository / "damaged").write_text("")
    refused(None, Error, "package linux-image", "cannot be unpacked: dpkg-deb: error: bad magic")
    (repository / "broken").write_text("")
    refused(None, Error, "apt-get cannot download it: it ended with 7")
    monkeypatch.setenv("PATH", "/nowhere")
    refused(None, UnsupportedError, "apt-cache: is not in PATH", "minicontainer kernel add FILE")


def test_a_package_with_two_kernels_is_refused(repository: Path) -> None:
    debian(repository)
    linuxes.tree(repository / f"tree-linux-image-{linuxes.RELEASE}", "6.2")
    refused(None, Error, "holds 2 kernels")

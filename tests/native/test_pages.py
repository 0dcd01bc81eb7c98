"""README.md and docs/ are done as they say, each page in order by one reader; on a host with hybrid cgroups, too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from abilities import why_not
from box import CLI, copy_of
from pages import PAGES, PROJECT, README, blocks

READER = PROJECT / "tests/reader.py"
# What the pages say and no reader here does: set-up, whose packages tests/unit/test_documentation.py compares with the
# Makefile's, and tests/native/test_wheel.py installs.
SET_UP = ("make", "apt", "dnf", "pip")
BOOTS = ("kvm-boot vmlinuz", "$ minicontainer run --isolation kvm")
LINUX = [page for page in PAGES if any(words in page.read_text(encoding="utf-8") for words in BOOTS)]
MIRROR = "http://deb.debian.org/debian/dists/bookworm/Release"
# docker export, of one image alone: what the page pipes into `minicontainer rootfs tar`
DOCKER = (
    "case $1 in create) echo 0123456789ab;; export) minicontainer rootfs busybox image && exec tar -C image -c .;; esac"
)
BOOT = (
    'mount -t tmpfs boot /boot && ln -s {0}/lib /boot/lib && touch "/boot/vmlinuz-$(uname -r)" && '
    'mount --bind {0}/vmlinuz "/boot/vmlinuz-$(uname -r)" && '
)

pytestmark = [pytest.mark.needs("root", "cgroup2", "overlay", "kvm", "bridge", "gcc"), pytest.mark.timeout(1200)]


@cache
def mirror() -> bool:
    """Whether Debian's packages can be had."""
    try:
        with urllib.request.urlopen(urllib.request.Request(MIRROR, method="HEAD"), timeout=5):
            return True
    except OSError:
        return False


def debootstrap() -> str:
    """Debian's own, in the network of this test; else what makes a smaller root file system where it would."""
    if (real := shutil.which("debootstrap")) and mirror():
        return f'exec nsenter --net=/proc/{os.getpid()}/ns/net {real} "$@"'
    return 'exec minicontainer rootfs busybox "$3"'


@pytest.fixture
def read(tmp_path: Path, rootfs: Path) -> Callable[..., None]:
    """Does what a page says, in a network namespace of its own: ``read(PAGE, ENOUGH)``."""
    scripts = {"minicontainer": 'exec {} "$@"'.format(" ".join(CLI)), "docker": DOCKER, "debootstrap": debootstrap()}
    if shutil.which("curl") is None:
        scripts["curl"] = 'shift; exec busybox wget -qO- "$@"'
    (tmp_path / "bin").mkdir()
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        (tmp_path / "bin" / name).chmod(0o755)
    reader = tmp_path / "reader"
    reader.mkdir()
    (reader / "examples").symlink_to(PROJECT / "examples")

    def do(page: Path, *without: str, before: str = "") -> None:
        if page != README:  # which makes its own
            copy_of(rootfs, reader / "rootfs")
        words = [sys.executable, "-W", "error", str(READER), str(page), *(f"--without={word}" for word in without)]
        if why_not("cgroup-memory") or why_not("cgroup-cpu"):
            words.append("--without-limits")
        done = subprocess.run(
            ["unshare", "--net", "--mount", "sh", "-c", f'ip link set lo up && {before} exec "$@"', "sh", *words],
            cwd=reader,
            env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1100,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    return do


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(read: Callable[..., None], page: Path) -> None:
    """But for a Linux to boot, which the next test has."""
    read(page, *SET_UP, "vmlinuz", "--isolation")


@pytest.mark.needs("rig", "kvm-hardware")
@pytest.mark.parametrize("page", LINUX, ids=lambda page: page.stem)
def test_page_that_boots_linux(read: Callable[..., None], page: Path) -> None:
    """The reader's own kernel is the one that the rig has for its guests."""
    read(page, *SET_UP, before=BOOT.format(os.environ["RIG_GUESTS"]))


def test_linux_is_booted_by_the_pages_that_newcomers_read() -> None:
    assert [page.stem for page in LINUX] == ["README", "isolation", "machines"]


def test_a_difference_is_told(read: Callable[..., None], tmp_path: Path) -> None:
    """What a page says wrongly is found: an output, a failure, a word of Python."""
    for text in (
        "```console\n$ echo a\nb\n```\n",
        "```console\n$ false\n```\n",
        "```python\nprint(1)  # 2\n```\n",
        "```python\nprint(1)\n```\n",
    ):
        page = tmp_path / "page.md"
        page.write_text(text, encoding="ascii")
        assert blocks(text)
        shutil.rmtree(tmp_path / "reader/rootfs", ignore_errors=True)
        with pytest.raises(AssertionError):
            read(page)

"""Somebody who writes to ROOTFS and to a volume swaps directories for links there, without end, while containers start
that mount on them and below them (CVE-2021-30465): nothing outside is opened, made or changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hostile import make_outside, swapping, variant, watched

import minicontainer as mc

STARTS = 500  # each way


@pytest.mark.needs("root")
@pytest.mark.parametrize("userns", ["auto", "host"])
def test_directories_that_become_links(tmp_path: Path, userns: str) -> None:
    outside = make_outside(tmp_path / "outside")
    volume, given = tmp_path / "volume", tmp_path / "given"
    given.mkdir()
    (given / "file").touch()
    with variant(tmp_path, "", "", outside) as root:
        swapped = [root / "dev", root / "sys", root / "work", volume / "a", volume / "b"]
        targets = (f"{'../' * 40}{outside}", "../outside", str(outside), f"/proc/self/root{outside}", "../../outside")
        for path, target in zip(swapped, targets, strict=True):
            path.mkdir(parents=True)
            path.with_name(f"{path.name}-link").symlink_to(target)
        (root / str(outside)[1:]).mkdir(parents=True)  # so that the links lead somewhere inside
        mounts = (
            mc.Mount("/volume", str(volume)),
            mc.Mount("/volume/a/made/directory", str(given)),
            mc.Mount("/volume/b/file", str(given / "file")),
            mc.Mount("/volume/a", type="tmpfs"),
        )
        spec = mc.Spec(["/bin/sh", "-c", ":"], rootfs=str(root), mounts=mounts, cwd="/work", userns=userns)
        said: Counter[str] = Counter()
        with watched(outside), watched(given), swapping(*swapped):
            for _ in range(STARTS):
                said[outcome(spec)] += 1
    assert said["works"]
    assert any("has a file or a link for /" in words for words in said)
    assert not [words for words in said if not words.isprintable() or "temporarily" in words]


def outcome(spec: mc.Spec) -> str:
    try:
        return "works" if mc.run(spec).returncode == 0 else "failed"
    except mc.Error as e:
        return str(e)

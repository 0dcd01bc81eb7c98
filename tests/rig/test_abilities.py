"""In the rig nothing is missing; and the ordinary user there has what tests promise to give it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import abilities
import pytest

Run = Callable[..., "CompletedProcess[str]"]

pytestmark = pytest.mark.needs("rig")

OVERLAY = (
    "mkdir l u w m && unshare --user --map-root-user --mount mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m"
)


@pytest.mark.parametrize("ability", sorted(abilities.PROBES.keys() - {"rig-host", "freezer"}))
def test_the_rig_can(ability: str) -> None:
    assert abilities.why_not(ability) == ""


def test_the_user_has_no_privilege(as_user: Run) -> None:
    assert as_user(["id", "-u"]).stdout == "1000\n"
    assert as_user(["cat"], input="given").stdout == "given"
    denied = as_user(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    assert denied.returncode != 0
    status = as_user(["cat", "/proc/self/status"]).stdout
    sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    assert {sets[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_the_user_has_a_place(as_user: Run, user_directory: Path) -> None:
    done = as_user(["sh", "-c", OVERLAY], cwd=user_directory)
    assert done.returncode == 0, done.stderr
    assert (user_directory / "m").stat().st_uid == 1000
    assert as_user(["sh", "-c", "touch $HOME/x $XDG_RUNTIME_DIR/x && rm $HOME/x $XDG_RUNTIME_DIR/x"]).returncode == 0


def test_the_user_can_map_its_ranges(as_user: Run) -> None:
    done = as_user(["unshare", "--user", "--map-auto", "--map-root-user", "cat", "/proc/self/uid_map"])
    assert done.stdout.split() == ["0", "1000", "1", "1", "100000", "65535"], done.stderr


def test_the_user_reads_the_root_file_system(as_user: Run, rootfs: Path) -> None:
    assert os.geteuid() == 0
    assert as_user(["ls", rootfs]).stdout.split()

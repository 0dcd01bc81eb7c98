"""No mount gives a set-uid file its effect: neither the masks, nor device nodes that are shown, nor a terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from abilities import USER_ID
from box import CLI, Box, copy_of
from supplies import Run

import minicontainer as mc
from minicontainer.detached.container import Container
from minicontainer.network.record import Network

SEE = "cat /proc/self/mountinfo"


def with_effect(mountinfo: str) -> set[str]:
    """The mount points without nosuid (proc(5): the sixth field)."""
    rows = [line.split() for line in mountinfo.splitlines()]
    assert len(rows) > 5
    return {row[4] for row in rows if "nosuid" not in row[5].split(",")}


WAYS = [
    [],
    ["--userns", "host"],
    ["--userns", "keep-id"],
    ["--ephemeral"],
    ["--ephemeral", "--userns", "host"],
    ["--read-only"],
    ["--device", "/dev/null:/dev/other", "--userns", "keep-id"],
    ["--ipc", "host"],
    ["--pid", "host"],
    ["--pid", "host", "--userns", "keep-id"],
    ["--network", "host", "--dns", "192.0.2.1"],
    ["--volume", "/etc:/mnt/etc", "--tmpfs", "/mnt/t", "--mount", "type=tmpfs,target=/mnt/u"],
]


@pytest.mark.needs("root")
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_every_mount(own_box: Box, way: list[str]) -> None:
    done = own_box.run("sh", "-c", SEE, options=way)
    assert (done.returncode, with_effect(done.stdout)) == (0, set()), done


@pytest.mark.needs("root")
@pytest.mark.parametrize("userns", [None, "keep-id"])
def test_every_mount_at_a_terminal(rootfs: Path, userns: str | None) -> None:
    container = mc.Popen(["sh", "-c", SEE], rootfs=str(rootfs), tty=True, userns=userns)
    seen = b""
    with container, contextlib.suppress(OSError):  # EIO: its last writer is gone
        while part := os.read(container.terminal, 65536):
            seen += part
    assert " /dev/console " in seen.decode()
    assert with_effect(seen.decode()) == set()


@pytest.mark.needs("root", "bridge")
@pytest.mark.usefixtures("no_network_stays")
def test_every_mount_on_a_network(own_box: Box, network: Network) -> None:
    seen = own_box.sh(SEE, "--network", network.name)
    assert " /etc/hosts " in seen
    assert with_effect(seen) == set()


@pytest.mark.needs("root")
def test_what_is_ours_is_so_whatever_is_asked_for(own_box: Box) -> None:
    """ROOTFS and volumes are the user's: where set-uid files are to work, they do; and where it is said of a volume."""
    volume = ["--volume", "/etc:/mnt/etc"]
    for given in (["--privileged"], ["--security-opt", "no-new-privileges=false"]):
        assert with_effect(own_box.sh(SEE, *volume, *given)) == {"/", "/mnt/etc"}
    assert with_effect(own_box.sh(SEE, "--volume", "/etc:/mnt/etc:suid")) == {"/mnt/etc"}


@pytest.mark.needs("root")
def test_what_enters_sees_the_same(make: Callable[..., Container]) -> None:
    container = make("sleep", "1000")
    seen = container.run(["sh", "-c", SEE], capture_output=True, text=True, stdin=mc.DEVNULL)
    assert with_effect(str(seen.stdout)) == set()


@pytest.mark.needs("user", "userns")
@pytest.mark.parametrize("way", [[], ["--ephemeral"], ["--network", "host"]], ids=" ".join)
def test_an_ordinary_user_s(as_user: Run, rootfs: Path, user_directory: Path, way: list[str]) -> None:
    mine = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(mine)], check=True)
    done = as_user([*CLI, "run", *way, mine, "sh", "-c", SEE])
    assert (done.returncode, with_effect(done.stdout)) == (0, set()), done

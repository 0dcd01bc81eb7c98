"""``diff`` of ephemeral containers: what was added, changed and deleted in them, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from box import copy_of, refusal, until
from supplies import Run
from tars import snapshot

import minicontainer as mc
from minicontainer.container import facts
from minicontainer.container.compilation import compile_spec
from minicontainer.detached.container import Container
from minicontainer.detached.monitor import MONITOR
from minicontainer.records import replace

pytestmark = pytest.mark.needs("root", "overlay")

Make = Callable[..., Container]


@pytest.fixture
def own(rootfs: Path, tmp_path: Path) -> Path:
    """A root file system with a tree to change."""
    root = copy_of(rootfs, tmp_path / "root")
    (root / "srv" / "full" / "deep").mkdir(parents=True)
    for name in ("srv/one", "srv/two", "srv/full/three", "srv/full/deep/four"):
        (root / name).write_text("lower")
    (root / "srv" / "link").symlink_to("one")
    return root


def told(container: Container, script: str) -> list[str]:
    done = container.run(["sh", "-c", script], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return [f"{change.kind} {change.path}" for change in container.changes()]


CASES = {
    ":": [],
    "cat /srv/one": [],
    "echo >/srv/new; mkdir -p /new/a": ["A /new", "A /new/a", "C /srv", "A /srv/new"],
    "echo >>/srv/one": ["C /srv", "C /srv/one"],
    "chmod 700 /srv/full": ["C /srv", "C /srv/full"],
    "rm /srv/one /srv/link": ["C /srv", "D /srv/link", "D /srv/one"],
    "rm -r /srv/full": ["C /srv", "D /srv/full"],
    "rm -r /srv": ["D /srv"],
    "rm -r /srv/full; mkdir /srv/full; echo >/srv/full/three; mkdir /srv/full/deep": [
        "C /srv",
        "C /srv/full",
        "C /srv/full/deep",
        "D /srv/full/deep/four",
        "C /srv/full/three",
    ],
    "rm -r /srv/full; echo >/srv/full": ["C /srv", "C /srv/full"],
    "rm /srv/one; mkdir -p /srv/one/full": ["C /srv", "C /srv/one", "A /srv/one/full"],
    "mv /srv/one /srv/three": ["C /srv", "D /srv/one", "A /srv/three"],
    "mv /srv/full /full": ["A /full", "A /full/deep", "A /full/deep/four", "A /full/three", "C /srv", "D /srv/full"],
    "echo >/srv/new; rm /srv/new": ["C /srv"],
    "ln /srv/one /srv/hard; ln -s / /srv/soft; mkfifo /srv/fifo": [
        "C /srv",
        "A /srv/fifo",
        "A /srv/hard",
        "C /srv/one",
        "A /srv/soft",
    ],
    "touch '/srv/line\nbreak'": ["C /srv", "A /srv/line\nbreak"],
    "touch /srv/$(printf '\\377')": ["C /srv", f"A /srv/{os.fsdecode(bytes([255]))}"],
    "rm /srv/full/three; echo >/tmp/x; echo >/dev/x; echo >/dev/shm/x": [
        "C /srv",
        "C /srv/full",
        "D /srv/full/three",
        "C /tmp",
        "A /tmp/x",
    ],
}


EMPTIES = re.compile(r"rm -r|mv /srv/full")


def tmpfs_has_user_attributes() -> bool:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        try:
            os.setxattr(file.name, "user.x", b"y")
        except OSError:
            return False
        return True


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_what_was_done_is_told(make: Make, own: Path, userns: str) -> None:
    before = snapshot(own)
    for script, expected in CASES.items():
        c = make("sleep", "1000", rootfs=str(own), ephemeral=True, userns=userns)
        if userns == "host" or tmpfs_has_user_attributes() or not EMPTIES.search(script):
            assert told(c, script) == expected, script
        else:  # the limit of Linux before 6.6 that container/compiler.py tells of
            assert b"Input/output error" in c.run(["sh", "-c", script], capture_output=True).stderr
        c.remove(force=True)
    assert snapshot(own) == before


def test_what_was_made_for_mounts_is_not_told(make: Make, own: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    mounts = (
        mc.Mount("/way/to/volume", str(tmp_path / "volume")),
        mc.Mount("/srv/here", type="tmpfs"),
        mc.Mount("/other/place", type="tmpfs"),
    )
    c = make("sleep", "1000", rootfs=str(own), ephemeral=True, mounts=mounts)
    assert told(c, "echo >/way/to/volume/x; echo >/srv/here/x") == []
    assert told(c, "echo >/way/new; echo >/srv/new") == ["C /srv", "A /srv/new", "A /way", "A /way/new"]


def test_each_run_has_its_own(make: Make, own: Path) -> None:
    script = "echo >/srv/$(cat /proc/sys/kernel/random/uuid); exec sleep 1000"
    c = make("sh", "-c", script, rootfs=str(own), ephemeral=True, restart="always")
    until(lambda: len(c.changes()) == 2)
    first = c.changes()
    os.kill(c.pid, signal.SIGKILL)
    until(lambda: c.status == "running" and c.state.restarts == 1)
    until(lambda: len(c.changes()) == 2)
    assert c.changes() != first
    monitor = c.state.monitor
    assert monitor is not None
    open_before = os.listdir(f"/proc/{monitor.pid}/fd")
    c.restart(0)
    until(lambda: len(c.changes()) == 2)
    again = c.state.monitor
    assert again is not None
    until(lambda: len(os.listdir(f"/proc/{again.pid}/fd")) == len(open_before))  # it is heard of before it closes that


def test_one_with_a_terminal(make: Make, own: Path) -> None:
    c = make("sh", "-c", "test -t 0; echo $? >/srv/new; exec sleep 1000", rootfs=str(own), ephemeral=True, tty=True)
    until(lambda: len(c.changes()) == 2)
    assert c.run(["cat", "/srv/new"], capture_output=True).stdout == b"0\n"
    assert told(c, ":") == ["C /srv", "A /srv/new"]


def test_others_have_none(make: Make, own: Path, minicontainer_cli: Run) -> None:
    plain = make("sleep", "1000", rootfs=str(own), name="plain")
    with pytest.raises(mc.Error, match="is not ephemeral: its writes go to ROOTFS itself"):
        plain.changes()
    over = make("true", rootfs=str(own), ephemeral=True)
    over.wait(60)
    with pytest.raises(mc.Error, match=r"is not running \(exited\): what it wrote is gone"):
        over.changes()
    refusal(minicontainer_cli("diff", "plain"), says=["diff", "is not ephemeral"])
    refusal(minicontainer_cli("diff", "nobody"), says=["there is no such container"])


def test_only_one_with_a_monitor_sends_its_layer(own: Path) -> None:
    spec = mc.Spec(["true"], rootfs=str(own), ephemeral=True)

    def sends(maker: str, of: mc.Spec) -> bool:
        return "send_fd" in [step.call for step in compile_spec(of, maker).plan.steps]

    for _ in range(2):  # also where the spec, or one of its family, was compiled for the other
        for one in (spec, replace(spec, args=("false",))):
            assert not sends(facts.CALLER, one)
            assert sends(MONITOR, one)


def test_the_command_line(make: Make, own: Path, minicontainer_cli: Run) -> None:
    c = make("sleep", "1000", rootfs=str(own), ephemeral=True, name="changed")
    assert told(c, "touch '/srv/line\nbreak'; rm /srv/one")
    done = minicontainer_cli("diff", "changed")
    assert (done.returncode, done.stdout, done.stderr) == (0, "C /srv\nA /srv/line\\nbreak\nD /srv/one\n", "")
    done = minicontainer_cli("diff", "--format", "json", c.id[:12])
    assert [tuple(change.values()) for change in map(json.loads, done.stdout.splitlines())] == [
        ("C", "/srv"),
        ("A", "/srv/line\nbreak"),
        ("D", "/srv/one"),
    ]

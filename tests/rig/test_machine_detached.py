"""``run -d --isolation kvm``: what a real machine adds to tests/native/test_machine_monitor.py.

A start takes many seconds: there are three, one of which is a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from box import until
from test_machine import tree

import minicontainer as mc

pytestmark = [pytest.mark.needs("rig", "kvm-hardware"), pytest.mark.timeout(300)]

ASKED = """
trap 'echo caught; exit 3' TERM
read line
echo "got $line"
while :; do sleep 0.1; done
"""


def test_a_machine_is_started_paused_asked_and_stopped(rootfs: Path, tmp_path: Path) -> None:
    kernel = tree(tmp_path, "vmlinuz")
    container = mc.Container.create(
        ["sh", "-c", ASKED], rootfs=str(rootfs), isolation="kvm", kernel=kernel, interactive=True, read_only=True
    )
    try:
        container.start_again()
        assert {event.side for event in container.timeline or ()} == {"parent", "child", "guest"}
        container.pause()
        assert container.status == "paused"
        container.unpause()
        with container.attach() as attachment:
            attachment.send(b"hello\n")
        until(lambda: b"got hello\n" in output(container))
        assert container.stats().memory
        assert next(task.command for task in container.tasks()) == "minicontainer-vmm"
        container.stop()
        assert (container.wait(), output(container)[-7:]) == (3, b"caught\n")
    finally:
        container.remove(force=True)


def test_a_machine_is_started_again_after_a_failure(rootfs: Path, tmp_path: Path) -> None:
    kernel = tree(tmp_path, "vmlinuz")
    (tmp_path / "data").mkdir()
    script = "date >>/data/starts; hostname; exit 5"
    spec = mc.Spec(
        ["sh", "-c", script], str(rootfs), isolation="kvm", kernel=kernel, name="again", read_only=True,
        mounts=(mc.Mount("/data", f"{tmp_path}/data"),),
    )  # fmt: skip
    container = mc.Container.start(spec, restart="on-failure:1")
    try:
        assert container.wait(250) == 5
        assert container.state.restarts == 1
        assert output(container) == b"again\nagain\n"
        assert len((tmp_path / "data" / "starts").read_text(encoding="utf-8").splitlines()) == 2
    finally:
        container.remove(force=True)


def output(container: mc.Container) -> bytes:
    return b"".join(entry.data for entry in container.logs())

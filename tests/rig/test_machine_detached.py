"""``run -d --isolation kvm``: what a real machine adds to tests/native/test_machine_monitor.py.

A start takes many seconds: there are three, one of which is a restart."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
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


def check_exec(container: mc.Container) -> None:
    """Further processes: streams, identity, exit codes, signals, a terminal, errors."""
    data = os.urandom(300_000)
    done = container.run(["sh", "-c", "cat; hostname >&2; exit 7"], input=data, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, data, container.id[:12].encode() + b"\n")
    script = 'id -u; id -g; pwd; echo "$A"; grep -c sleep /proc/1/cmdline; kill -TERM $$'
    done = container.run(["sh", "-c", script], user="12:34", cwd="/tmp", env={"A": "b  c"}, capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"12\n34\n/tmp\nb  c\n1\n")
    assert {event.side for event in done.timeline} == {"parent", "child", "guest"}
    with pytest.raises(mc.ProgramError) as caught:
        container.run(["/no/such"])
    assert caught.value.exit_code == 127
    with container.exec(["sleep", "1001"]) as process:
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    until(lambda: b"1001" not in container.run(["ps"], capture_output=True).stdout)
    with container.exec(["sh", "-c", "tty; read line; stty size; exit 4"], tty=True) as process:
        assert b"/dev/pts/" in os.read(process.terminal, 100)
        fcntl.ioctl(process.terminal, termios.TIOCSWINSZ, struct.pack("=HHHH", 33, 99, 0, 0))
        os.write(process.terminal, b"\n")
        assert process.wait(60) == 4


def check_files(container: mc.Container, place: Path) -> None:
    """What the host copies is seen in the guest, and the other way round."""
    (place / "one").write_text("of the host\n", encoding="utf-8")
    container.copy_in(f"{place}/one", "/data/in")
    script = "cat /data/in; echo of the guest >/data/out"
    assert container.run(["sh", "-c", script], capture_output=True).stdout == b"of the host\n"
    container.copy_out("/data/out", f"{place}/other")
    assert (place / "other").read_text(encoding="utf-8") == "of the guest\n"


def test_a_machine_is_started_paused_asked_and_stopped(rootfs: Path, tmp_path: Path) -> None:
    kernel = tree(tmp_path, "vmlinuz")
    (tmp_path / "data").mkdir()
    container = mc.Container.create(
        ["sh", "-c", ASKED], rootfs=str(rootfs), isolation="kvm", kernel=kernel, interactive=True, read_only=True,
        mounts=(mc.Mount("/data", f"{tmp_path}/data"),),
    )  # fmt: skip
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
        check_exec(container)
        check_files(container, tmp_path)
        process = container.exec(["sleep", "1002"])
        container.stop()
        assert process.wait(60) == -signal.SIGKILL
        process.close()
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

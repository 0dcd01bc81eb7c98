"""What a container writes, whatever it is and however quickly: all of it, in order, each stream by itself; rotation."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import CLI, until

import minicontainer as mc

Run = Callable[..., mc.Container]

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def run(rootfs: Path, tmp_path: Path) -> Iterator[Run]:
    """``run(SCRIPT, **options)``: a container that has ended; ``/data`` is a directory of the test's."""
    made: list[mc.Container] = []

    def start(script: str, **options: Any) -> mc.Container:
        volume = mc.Mount("/data", str(tmp_path))
        made.append(mc.Container.start(["sh", "-c", script], rootfs=str(rootfs), mounts=(volume,), **options))
        made[-1].wait(60)
        return made[-1]

    yield start
    for container in made:
        container.remove(force=True)


def written(container: mc.Container, stream: str = "stdout") -> bytes:
    return b"".join(entry.data for entry in container.logs() if entry.stream == stream)


@pytest.mark.parametrize("size", [1, 15999, 16000, 16001, 70000])
def test_any_bytes_come_back_as_they_were(run: Run, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "bytes").write_bytes(data)
    c = run("cat /data/bytes; cat /data/bytes >&2")
    assert written(c) == data
    assert written(c, "stderr") == data


def test_a_flood_of_short_lines(run: Run) -> None:
    c = run("seq 1 20000")
    assert written(c) == b"".join(b"%d\n" % n for n in range(1, 20001))


def test_only_newlines(run: Run) -> None:
    c = run("head -c 50000 /dev/zero | tr '\\0' '\\n'")
    assert written(c) == b"\n" * 50000


def test_files_have_their_size_and_number(run: Run) -> None:
    c = run("seq 1 40000", log={"max-size": "64k", "max-file": 3})
    files = {
        name: os.stat(f"{c.directory}/{name}").st_size for name in os.listdir(c.directory) if name.startswith("log")
    }
    assert sorted(files) == ["log", "log.1", "log.2"]
    assert max(files.values()) <= 65536
    kept = written(c)
    assert kept.endswith(b"39999\n40000\n")
    whole = kept.split(b"\n", 1)[1]  # the first line may have begun in a file that is gone
    first = int(whole.split(b"\n", 1)[0])
    assert whole == b"".join(b"%d\n" % n for n in range(first, 40001))


def test_one_file_alone(run: Run) -> None:
    c = run("seq 1 10000", log={"max-size": "64k", "max-file": 1})
    assert [name for name in os.listdir(c.directory) if name.startswith("log")] == ["log"]
    assert written(c).endswith(b"10000\n")


def test_a_reader_that_is_quick_enough_misses_nothing(rootfs: Path) -> None:
    script = "for i in $(seq 1 60); do seq $((i * 100 - 99)) $((i * 100)); sleep 0.01; done"
    log = {"max-size": "64k", "max-file": 4}
    c = mc.Container.start(["sh", "-c", script], rootfs=str(rootfs), log=log)
    try:
        seen = b"".join(entry.data for entry in c.logs(follow=True))
        assert seen == b"".join(b"%d\n" % n for n in range(1, 6001))
    finally:
        c.remove(force=True)


def test_what_ended_children_still_write_is_kept(run: Run) -> None:
    c = run("(sleep 0.05; echo late) & echo early; wait")
    assert written(c) == b"early\nlate\n"


def test_a_terminal_is_one_stream(rootfs: Path) -> None:
    c = mc.Container.start(["sh", "-c", "echo out; echo err >&2; tty"], rootfs=str(rootfs), tty=True)
    try:
        assert c.wait(60) == 0
        assert written(c) == b"out\r\nerr\r\n/dev/pts/0\r\n"
    finally:
        c.remove(force=True)


def test_following_ends_with_the_container(rootfs: Path) -> None:
    c = mc.Container.start(["cat"], rootfs=str(rootfs), interactive=True)
    try:
        with c.attach() as attached:
            attached.send(b"a\n" * 100000)
            attached.end_input()
        assert b"".join(entry.data for entry in c.logs(follow=True)) == b"a\n" * 100000
        assert c.state.exit_code == 0
    finally:
        c.remove(force=True)


def test_input_is_refused_where_nobody_reads_it(rootfs: Path) -> None:
    c = mc.Container.start(["sleep", "1000"], rootfs=str(rootfs))
    try:
        with c.attach() as attached, pytest.raises(mc.Error, match="its standard input is not open"):
            attached.send(b"x")
        c.stop(0)
        with pytest.raises(mc.Error, match="is not running"):
            c.attach()
    finally:
        c.remove(force=True)
    until(lambda: not os.path.exists(c.directory))


def test_a_reader_that_stops_stops_nobody(rootfs: Path) -> None:
    """It stands still (SIGSTOP) while more is written than any pipe or buffer holds, and to the end."""
    script = "read go; seq 1 200000; echo done; exit 3"
    c = mc.Container.start(["sh", "-c", script], rootfs=str(rootfs), interactive=True)
    try:
        with subprocess.Popen([*CLI, "logs", "-f", c.id], stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.send_signal(signal.SIGSTOP)
            with c.attach() as attached:
                attached.send(b"go\n")
            assert c.wait(60) == 3
            reader.send_signal(signal.SIGCONT)
            assert reader.stdout.read().endswith(b"200000\ndone\n")
            assert reader.wait(60) == 0
    finally:
        c.remove(force=True)

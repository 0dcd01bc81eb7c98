"""Logs as they are read: entries, the last lines, rotation under a reader. No container is needed."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.detached.logs import Entry, Log, entries, parse

STAMP = "2026-11-23T16:51:08.{:09d}Z"


def line(number: int, text: str, stream: str = "stdout", kind: str = "F") -> bytes:
    return f"{STAMP.format(number)} {stream} {kind} {text}\n".encode()


def test_an_entry() -> None:
    (entry,) = parse(line(7, "a line"))
    assert entry == Entry(1795452668 * 10**9 + 7, "stdout", b"a line\n")
    assert entry.time == pytest.approx(1795452668)
    (part,) = parse(line(7, "a part", "stderr", "P"))
    assert (part.stream, part.data) == ("stderr", b"a part")


@given(st.binary())
def test_any_bytes_are_entries_or_left_out(data: bytes) -> None:
    for entry in parse(data):
        assert entry.stream in ("stdout", "stderr", "lost")


@given(
    st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40).filter(lambda b: b"\n" not in b)))
)
def test_what_was_written_is_read(parts: list[tuple[str, bytes]]) -> None:
    data = b"".join(
        STAMP.format(i).encode() + b" " + stream.encode() + b" F " + text + b"\n"
        for i, (stream, text) in enumerate(parts)
    )
    assert [(e.stream, e.data[:-1]) for e in parse(data)] == parts


ONE, TW, ERR, O_, THREE = (
    line(1, "one"),
    line(2, "tw", kind="P"),
    line(3, "err", "stderr"),
    line(4, "o"),
    line(5, "three", kind="P"),
)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(3, [TW, ERR, O_, THREE]), (2, [ERR, THREE]), (1, [THREE]), (0, []), (9, [ONE, TW, ERR, O_, THREE])],
)
def test_the_last_lines_are_whole(tmp_path: Path, count: int, shown: list[bytes]) -> None:
    (tmp_path / "log.1").write_bytes(ONE + TW)
    (tmp_path / "log").write_bytes(ERR + O_ + THREE)
    assert list(entries(str(tmp_path), None, tail=count)) == list(parse(b"".join(shown)))


def test_a_line_of_any_length_takes_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as f:
        for number in range(4000):
            f.write(line(number, "x" * 16000, kind="P"))
    tracemalloc.start()
    try:
        assert sum(len(entry.data) for entry in entries(str(tmp_path), None, tail=1)) == 4000 * 16000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tail", [None, 5])
def test_holes_are_left_out(tmp_path: Path, tail: int | None) -> None:
    """No monitor makes one: a file of terabytes is read at once."""
    (tmp_path / "log").write_bytes(line(1, "a"))
    os.truncate(tmp_path / "log", 1 << 42)
    with open(tmp_path / "log", "r+b") as f:
        f.seek((1 << 42) - 5)
        f.write(b"\n" + line(2, "b"))
    assert [e.data for e in entries(str(tmp_path), None, tail=tail)] == [b"a\n", b"b\n"]


def test_files_are_read_from_the_oldest(tmp_path: Path) -> None:
    for number, name in enumerate(["log.2", "log.1", "log"]):
        (tmp_path / name).write_bytes(line(number, name))
    (tmp_path / "log.txt").write_bytes(line(9, "not a log"))
    assert [e.data for e in entries(str(tmp_path), None)] == [b"log.2\n", b"log.1\n", b"log\n"]
    assert [e.data for e in entries(str(tmp_path), None, tail=1)] == [b"log\n"]
    assert list(entries(str(tmp_path), None, since=2e9)) == []


def rotate(directory: Path, keep: int = 3) -> None:
    for number in range(keep - 1, -1, -1):
        name = directory / (f"log.{number}" if number else "log")
        if name.exists():
            name.unlink() if number == keep - 1 else name.rename(directory / f"log.{number + 1}")


def test_a_reader_follows_through_rotations(tmp_path: Path) -> None:
    with Log(str(tmp_path)) as log:
        assert list(log.read()) == []
        (tmp_path / "log").write_bytes(line(1, "a"))
        assert [e.data for e in log.read()] == [b"a\n"]
        with open(tmp_path / "log", "ab") as f:
            f.write(line(2, "b"))
        rotate(tmp_path)
        (tmp_path / "log").write_bytes(line(3, "c"))
        assert [e.data for e in log.read()] == [b"b\n", b"c\n"]
        for number in range(4, 9):  # more than are kept: the oldest that is there comes next
            rotate(tmp_path)
            (tmp_path / "log").write_bytes(line(number, str(number)))
        assert [e.data for e in log.read()] == [b"6\n", b"7\n", b"8\n"]


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    whole = line(1, "a whole line")
    with Log(str(tmp_path)) as log, open(tmp_path / "log", "wb", buffering=0) as f:
        f.write(whole[:20])
        assert list(log.read()) == []
        f.write(whole[20:])
        assert [e.data for e in log.read()] == [b"a whole line\n"]


def test_a_directory_that_goes_away(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    (directory / "log").write_bytes(line(1, "a"))
    with Log(str(directory)) as log:
        assert len(list(log.read())) == 1
        os.unlink(directory / "log")
        directory.rmdir()
        assert list(log.read()) == []

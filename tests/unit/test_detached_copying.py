"""The parts of ``cp`` that need no container: ids, paths that stay inside, contents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.cli.cp import _split
from minicontainer.detached.filedata import copy_data
from minicontainer.detached.paths import IN_ROOT, IdMap, Root, host_root
from minicontainer.native import lib


def test_ids_of_several_ranges() -> None:
    ids = IdMap(((0, 1000, 1), (1, 100000, 65535)), ((0, 1001, 1), (1, 200000, 65535)))
    assert ids.to_host(0, 0) == (1000, 1001)
    assert ids.to_host(1, 65535) == (100000, 265534)
    assert ids.to_host(65536, 0) is None
    assert ids.to_host(0, 65536) is None
    assert ids.to_container(1000, 200001) == (0, 2)
    assert ids.to_container(0, 1001) == (0, 0)  # nobody keeps his number
    assert IdMap().to_host(7, 8) == IdMap().to_container(7, 8) == (7, 8)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Root]:
    """The directory ``root``, as a container's; ``secret`` lies beside it."""
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "d" / "file").touch()
    fd = os.open(tmp_path / "root", lib.O_PATH | os.O_DIRECTORY)
    yield Root(fd, IN_ROOT, IdMap(), ("/d/hidden",))
    os.close(fd)


@pytest.mark.parametrize("text", ["../secret", "/../secret", "../../../secret", "d/../../secret"])
def test_no_path_leads_out(place: Root, tmp_path: Path, text: str) -> None:
    (tmp_path / "root" / "link").symlink_to(text)
    (tmp_path / "root" / "absolute").symlink_to(tmp_path / "secret")
    for path in (text, "link", "/link", "absolute"):
        with pytest.raises(FileNotFoundError):
            place.open(path, os.O_RDONLY)
        try:
            at, name = place.locate(path)
        except FileNotFoundError:
            continue
        assert os.readlink(f"/proc/self/fd/{at}").startswith(str(tmp_path / "root"))
        assert name == "secret"
        os.close(at)


def test_where_a_name_leads_to(place: Root, tmp_path: Path) -> None:
    (tmp_path / "root" / "a").symlink_to("d/b")
    (tmp_path / "root" / "d" / "b").symlink_to("/d/new")
    (tmp_path / "root" / "loop").symlink_to("loop")
    at, name = place.locate("/a")
    assert (os.readlink(f"/proc/self/fd/{at}"), name) == (str(tmp_path / "root" / "d"), "new")
    os.close(at)
    for path in ("/", "", "d/..", "d/."):
        with pytest.raises(FileNotFoundError):
            place.locate(path)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        place.locate("loop")


def test_what_is_made_replaces_nothing(place: Root, tmp_path: Path) -> None:
    at = host_root().open(str(tmp_path / "root" / "d"), lib.O_PATH)
    for make in (
        lambda: place.make_file(at, "file"),
        lambda: place.make_directory(at, "file"),
        lambda: place.make_link(at, "file", "x"),
        lambda: place.make_node(at, "file", 0o10600),
    ):
        with pytest.raises(FileExistsError):
            make()
    os.close(at)


@pytest.mark.parametrize("size", [0, 1, 70000, 1 << 20, 3 << 20])
def test_so_much_is_copied_and_no_more(tmp_path: Path, size: int) -> None:
    """Of 2 MiB that are text, hole, text; beyond its end there are zeros, as of a file that was cut meanwhile."""
    data = os.urandom(1 << 19) + bytes(1 << 20) + os.urandom(1 << 19)
    with open(tmp_path / "source", "wb") as f:
        f.write(data[: 1 << 19])
        f.seek(3 << 19)
        f.write(data[3 << 19 :])
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "target", "wb") as target:
        copy_data(source.fileno(), target.fileno(), size)
    assert (tmp_path / "target").read_bytes() == (data + bytes(1 << 20))[:size]
    assert (tmp_path / "target").stat().st_blocks * 512 <= (1 << 20) + 65536


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("box:/etc", ("box", "/etc")),
        ("box:", ("box", "/")),
        ("box:a:b", ("box", "a:b")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("a/b:c", ("", "a/b:c")),
        ("file", ("", "file")),
    ],
)
def test_whose_path_it_is(text: str, expected: tuple[str, str]) -> None:
    assert _split(text) == expected

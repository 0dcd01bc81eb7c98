"""Filters that are kept in files: found again, and not believed where somebody else could have written them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import usercache
from minicontainer.container import filecache, seccomp
from minicontainer.container.seccomp import profile
from minicontainer.errors import SpecError
from minicontainer.spec import Spec

NAME, KEY, PROGRAM = b"name", b"key of it", bytes(range(64))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the cache, in a home of its own, where one program is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "maker").write_text("one", encoding="ascii")
    filecache.store("seccomp", NAME, KEY, PROGRAM, [str(tmp_path / "maker")])
    assert filecache.load("seccomp", NAME, KEY) == PROGRAM
    return tmp_path / "minicontainer/seccomp"


def kept(place: Path) -> Path:
    (file,) = place.iterdir()
    return file


def test_it_is_found_by_its_whole_key(place: Path) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept(place).stat().st_mode) == 0o600
    for other in (b"", b"key", KEY + b"x", b"key of iT"):
        assert filecache.load("seccomp", NAME, other) is None
    assert filecache.load("seccomp", b"other", KEY) is None


def test_a_later_one_takes_the_place_of_an_earlier(place: Path) -> None:
    filecache.store("seccomp", NAME, b"later", b"p", [__file__])
    assert (filecache.load("seccomp", NAME, KEY), filecache.load("seccomp", NAME, b"later")) == (None, b"p")
    assert kept(place)


@pytest.mark.parametrize("change", ["content", "another", "time"])
def test_a_maker_that_changed_makes_it_stale(place: Path, tmp_path: Path, change: str) -> None:
    maker = tmp_path / "maker"
    if change == "content":
        maker.write_text("another", encoding="ascii")
    elif change == "another":
        (tmp_path / "new").write_text("one", encoding="ascii")
        os.utime(tmp_path / "new", ns=(0, maker.stat().st_mtime_ns))
        (tmp_path / "new").rename(maker)
    else:
        os.utime(maker, ns=(0, 0))
    assert filecache.load("seccomp", NAME, KEY) is None


def test_a_maker_that_is_gone_leaves_it_good(place: Path, tmp_path: Path) -> None:
    """Without libseccomp what it made before still serves."""
    (tmp_path / "maker").unlink()
    assert filecache.load("seccomp", NAME, KEY) == PROGRAM


def link_the_file(place: Path) -> None:
    file = kept(place)
    file.rename(place.parent / "elsewhere")
    file.symlink_to(place.parent / "elsewhere")


def link_the_directory(place: Path) -> None:
    place.rename(place.parent / "elsewhere")
    place.symlink_to("elsewhere")


def put_a_fifo(place: Path) -> None:
    file = kept(place)
    file.unlink()
    os.mkfifo(file, 0o600)


SPOILS: dict[str, Callable[[Path], object]] = {
    "a file that its group can write": lambda place: kept(place).chmod(0o620),
    "a file that anybody can write": lambda place: kept(place).chmod(0o602),
    "a directory that its group can write": lambda place: place.chmod(0o720),
    "a directory that anybody can write": lambda place: place.chmod(0o703),
    "a link in place of the file": link_the_file,
    "a link in place of the directory": link_the_directory,
    "a fifo": put_a_fifo,
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_what_another_could_write_is_not_believed(place: Path, spoil: Callable[[Path], object]) -> None:
    spoil(place)
    assert filecache.load("seccomp", NAME, KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away; an ordinary user's are refused alike")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_belongs_to_another_is_not_believed(place: Path, what: str) -> None:
    os.chown(kept(place) if what == "file" else place, 1000, 1000)
    assert filecache.load("seccomp", NAME, KEY) is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_damaged_is_not_believed(place: Path, data: st.DataObject) -> None:
    """Cut anywhere, longer, or with any byte changed."""
    file = kept(place)
    good = file.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    byte = bytes([good[at] ^ data.draw(st.integers(1, 255))])
    for damaged in (good[:at], good + byte, good[:at] + byte + good[at + 1 :]):
        file.write_bytes(damaged)
        assert filecache.load("seccomp", NAME, KEY) is None
    file.write_bytes(good)
    assert filecache.load("seccomp", NAME, KEY) == PROGRAM


def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in (tmp_path / "file/below", "/proc", "/dev/null"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        filecache.store("seccomp", NAME, KEY, PROGRAM, [__file__])
        assert filecache.load("seccomp", NAME, KEY) is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert usercache.directory("seccomp") == f"{tmp_path}/.cache/minicontainer/seccomp"


@pytest.mark.skipif(os.geteuid() != 0, reason="of root, in a home that is another's")
def test_root_makes_nothing_in_the_home_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    os.chown(tmp_path, 1000, 1000)
    filecache.store("seccomp", NAME, KEY, PROGRAM, [__file__])
    assert not list(tmp_path.iterdir())
    os.chown(tmp_path, 0, 0)


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    filecache.store("seccomp", NAME, KEY, PROGRAM, [__file__])
    assert not list(tmp_path.iterdir())
    (tmp_path / "nonexistent").mkdir()
    filecache.store("seccomp", NAME, KEY, PROGRAM, [__file__])
    assert filecache.load("seccomp", NAME, KEY) == PROGRAM


def test_a_source_whose_name_ends_a_line_keeps_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("one", encoding="ascii")
    filecache.store("seccomp", b"other", b"k", PROGRAM, [str(tmp_path / "a\nb")])
    assert filecache.load("seccomp", b"other", b"k") is None


def test_a_source_that_cannot_be_read_counts_as_changed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "maker").unlink()
    assert filecache.load("seccomp", NAME, KEY) == PROGRAM  # removed: there is no newer version
    (tmp_path / "maker").symlink_to("maker")
    assert filecache.load("seccomp", NAME, KEY) is None


# ---- as it is used


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bytes]:
    """The default filter as a new process finds it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def program() -> bytes:
        seccomp._default.cache_clear()
        seccomp._compiled.cache_clear()
        return seccomp.program(Spec(rootfs="/"))

    return program


def test_a_filter_is_made_once(anew: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    first = anew()

    def never(*_: object) -> bytes:
        raise AssertionError("it is made again")

    monkeypatch.setattr(profile, "program", never)
    assert anew() == first
    with pytest.raises(AssertionError, match="it is made again"):
        seccomp.program(Spec(rootfs="/", cap_add=("SYS_ADMIN",)))


def test_what_is_refused_is_not_kept(tmp_path: Path, anew: Callable[[], bytes]) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text('{"defaultAction": "SCMP_ACT_MAYBE"}', encoding="ascii")
    for _ in range(2):
        with pytest.raises(SpecError, match="SCMP_ACT_MAYBE"):
            seccomp.program(Spec(rootfs="/", seccomp=str(wrong)))
    assert not (tmp_path / "minicontainer").exists()
    assert anew()

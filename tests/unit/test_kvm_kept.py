"""Unpacked kernels that are kept in files: found again, bounded, and not believed where another could write them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kernels as k
import pytest
from kernels import Load

from minicontainer.kvm.boot import kept, unpack

BIG = k.pvh() + bytes(5 << 20)  # more than kept.LEAST


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the cache, in a home of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache/minicontainer/kernels"


@pytest.fixture
def unpacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is unpacked from now on."""
    sizes: list[int] = []
    true = unpack.unpack

    def counting(packed: bytes, size: int) -> object:
        sizes.append(size)
        return true(packed, size)

    monkeypatch.setattr(unpack, "unpack", counting)
    return sizes


def image(content: bytes = BIG) -> bytes:
    return k.bzimage(k.PACKERS["gzip"](content))


def test_a_kernel_is_unpacked_once(load: Load, place: Path, unpacks: list[int]) -> None:
    first, memory = load(image())
    second, again = load(image())
    assert unpacks == [len(BIG)]
    assert (first, first.kind) == (second, "pvh")
    for address, size in first.used:
        assert memory.read(address, size) == again.read(address, size)
    (file,) = place.iterdir()
    assert file.read_bytes() == BIG
    assert (stat.S_IMODE(place.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)


def test_a_small_kernel_is_not_kept(load: Load, place: Path, unpacks: list[int]) -> None:
    load(image(k.pvh()))
    load(image(k.pvh()))
    assert len(unpacks) == 2
    assert not place.exists()


def test_other_bytes_are_another_kernel(load: Load, place: Path, unpacks: list[int]) -> None:
    load(image())
    load(image(BIG[:-1] + b"x"))
    assert len(unpacks) == len(list(place.iterdir())) == 2


def put_a_link(file: Path) -> None:
    moved = file.rename(file.parents[2] / "moved")
    file.symlink_to(moved)


def write_at(file: Path, at: int, content: bytes) -> None:
    with file.open("r+b") as f:
        f.seek(at)
        f.write(content)


SPOILS: dict[str, Callable[[Path], object]] = {
    "cut off": lambda file: os.truncate(file, 1000),
    "longer": lambda file: os.truncate(file, len(BIG) + 1),
    "another byte": lambda file: write_at(file, len(BIG) // 2, b"x"),
    "other bytes": lambda file: file.write_bytes(bytes(len(BIG))),
    "writable by a group": lambda file: file.chmod(0o620),
    "in a directory that others can write": lambda file: file.parent.chmod(0o777),
    "a link": put_a_link,
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_what_is_not_ours_and_whole_is_not_believed(
    load: Load, place: Path, unpacks: list[int], spoil: Callable[[Path], object]
) -> None:
    entry, before = load(image())
    (file,) = place.iterdir()
    spoil(file)
    again, memory = load(image())
    assert again == entry
    assert len(unpacks) == 2
    for address, size in entry.used:
        assert memory.read(address, size) == before.read(address, size)


def test_a_file_that_cannot_be_touched_is_used(
    load: Load, place: Path, unpacks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is read-only now."""
    load(image())

    def utime(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", utime)
    assert load(image())[0].kind == "pvh"
    assert len(unpacks) == 1


def test_those_used_longest_ago_make_room(
    load: Load, place: Path, unpacks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "TOTAL_MAX", 2 * len(BIG) + 100)
    for byte in b"ab":
        load(image(BIG[:-1] + bytes([byte])))
    for age, file in enumerate(sorted(place.iterdir(), key=lambda f: f.stat().st_atime_ns, reverse=True)):
        os.utime(file, ns=(10**18 - age, file.stat().st_mtime_ns))
    load(image(BIG[:-1] + b"a"))  # used again: b is the oldest now
    load(image(BIG[:-1] + b"c"))
    assert {file.read_bytes()[-1:] for file in place.iterdir()} == {b"a", b"c"}
    assert len(unpacks) == 3


def test_a_damaged_kernel_is_not_kept(load: Load, place: Path) -> None:
    packed = bytearray(k.PACKERS["gzip"](BIG))
    packed[40] ^= 0xFF
    load(k.bzimage(bytes(packed)))  # the kernel unpacks itself, and says so
    assert not place.exists()


LOADED = """
import sys
from minicontainer.kvm import boot
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.kvm.memory import GuestMemory
with Kernel(sys.argv[1]) as kernel:
    boot.load(kernel, GuestMemory("32M"), boot.Options())
print(*sys.modules)
"""


def test_a_kernel_that_is_kept_needs_few_modules(tmp_path: Path, place: Path) -> None:
    """Each costs a share of the boot, on an emulated processor most."""
    (tmp_path / "kernel").write_bytes(image())
    command = [sys.executable, "-c", LOADED, str(tmp_path / "kernel")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "minicontainer.kvm.boot.kept" in done.stdout.split()
    assert not {"typing", "re", "enum", "contextlib", "collections", "hashlib", "zlib"} & set(done.stdout.split())


def test_where_nothing_can_be_kept_kernels_boot_all_the_same(
    load: Load, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home in ("/proc", "/dev/null", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        monkeypatch.setenv("HOME", "/proc")
        assert load(image())[0].kind == "pvh"
    assert not place.exists()

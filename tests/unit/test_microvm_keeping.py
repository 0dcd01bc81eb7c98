"""A machine that was made is kept, and found again only while all that it depends on is the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer import usercache
from minicontainer.kvm.boot import elf, kept
from minicontainer.microvm import image, keeping
from minicontainer.microvm.keeping import Keeping

DATA = b"a machine"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keeping, "processor", lambda _: b"a processor")
    monkeypatch.setattr(keeping, "IMPORTED", 1 << 62)
    return tmp_path / "cache/minicontainer"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    (tmp_path / "kernel").write_bytes(b"the kernel")
    return tmp_path / "kernel"


@pytest.fixture
def initramfs(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "initramfs").write_bytes(b"an initramfs")
    fd = os.open(tmp_path / "initramfs", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def keep(kernel: Path, initramfs: int) -> Callable[..., Keeping]:
    return lambda *asked: Keeping(str(kernel), initramfs, -1, asked or ("asked",))


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def kept_with(keeper: Keeping, *files: int) -> None:
    keeper.keep(DATA, files)


def found(keeper: Keeping) -> tuple[bytes, list[bytes]] | None:
    made = keeper.find()
    if made is None:
        return None
    contents = [os.pread(fd, 100, 0) for fd in made[1]]
    for fd in made[1]:
        os.close(fd)
    return made[0], contents


@pytest.fixture
def stored(keep: Callable[..., Keeping], kernel: Path, initramfs: int) -> Callable[..., Keeping]:
    fd = opened(kernel)
    kept_with(keep(), fd, initramfs)
    os.close(fd)
    return keep


def test_it_is_found_again_with_its_files(stored: Callable[..., Keeping]) -> None:
    assert found(stored()) == (DATA, [b"the kernel", b"an initramfs"])


def test_another_request_has_another_machine(stored: Callable[..., Keeping]) -> None:
    assert found(stored("asked", 1)) is None


def test_another_processor_has_another_machine(stored: Callable[..., Keeping], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "processor", lambda _: b"another")
    assert found(stored()) is None


def test_a_changed_kernel_is_another(stored: Callable[..., Keeping], kernel: Path) -> None:
    times = kernel.stat().st_atime_ns, kernel.stat().st_mtime_ns
    kernel.write_bytes(b"another-10")
    os.utime(kernel, ns=times)
    assert found(stored()) is None


def test_a_kernel_that_changes_meanwhile_is_not_opened(stored: Callable[..., Keeping], kernel: Path) -> None:
    keeper = stored()
    kernel.unlink()
    kernel.write_bytes(b"the kernel")
    assert found(keeper) is None


def test_changed_code_makes_it_anew(
    keep: Callable[..., Keeping], initramfs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.py"
    source.write_text("one")
    monkeypatch.setattr(keeping, "_sources", lambda: iter([str(source)]))
    kept_with(keep(), initramfs)
    assert found(keep()) is not None
    source.write_text("other")
    assert found(keep()) is None


def test_code_that_has_just_changed_is_not_trusted(
    keep: Callable[..., Keeping], initramfs: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "IMPORTED", 0)
    kept_with(keep(), initramfs)
    assert not (cache / keeping.KIND).exists()


def test_an_unpacked_kernel_is_found_by_its_name(keep: Callable[..., Keeping], initramfs: int, cache: Path) -> None:
    assert keeping.UNPACKED == kept.KIND
    usercache.keep(kept.KIND, "abc-8", b"unpacked")
    fd = opened(cache / kept.KIND / "abc-8")
    kept_with(keep(), fd, initramfs)
    os.close(fd)
    assert found(keep()) == (DATA, [b"unpacked", b"an initramfs"])
    (cache / kept.KIND / "abc-8").unlink()
    assert found(keep()) is None


def test_a_file_of_another_size_is_not_used(keep: Callable[..., Keeping], cache: Path) -> None:
    usercache.keep(kept.KIND, "abc-8", b"unpacked")
    fd = opened(cache / kept.KIND / "abc-8")
    kept_with(keep(), fd)
    os.close(fd)
    usercache.keep(kept.KIND, "abc-8", b"other")
    assert found(keep()) is None


def test_what_cannot_be_opened_again_is_not_kept(keep: Callable[..., Keeping], tmp_path: Path, cache: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x")
    fd = opened(tmp_path / "elsewhere")
    kept_with(keep(), fd)
    os.close(fd)
    keep().keep(bytes(keeping.DATA_MAX + 1), [])
    assert not (cache / keeping.KIND).exists()


def test_a_damaged_file_is_ignored(stored: Callable[..., Keeping], cache: Path) -> None:
    (file,) = (cache / keeping.KIND).iterdir()
    whole = file.read_bytes()
    for content in (b"", whole[:-20], b"i\1\0\0\0", whole.replace(DATA, DATA[::-1])):
        file.write_bytes(content)
        assert found(stored()) is None


def test_a_damaged_kernel_is_not_used(keep: Callable[..., Keeping], cache: Path) -> None:
    usercache.keep(kept.KIND, "abc-8", b"unpacked")
    file = cache / kept.KIND / "abc-8"
    fd = opened(file)
    kept_with(keep(), fd)
    os.close(fd)
    assert found(keep()) == (DATA, [b"unpacked"])
    file.write_bytes(b"dunpacke")
    assert found(keep()) is None


def test_the_code_that_makes_machines_is_known() -> None:
    sources = {Path(source).name for source in keeping._sources()}
    made_by = {Path(module.__file__ or "").name for module in (elf, image, keeping)}
    assert made_by | {"acpi.py", "_native.abi3.so"} <= sources

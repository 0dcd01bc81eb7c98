"""The initramfs of a machine: what it holds, and that it is made once for a kernel, its modules and our programs."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import linuxes
import pytest
from kernels import one_line

from minicontainer import cpio
from minicontainer.errors import UnsupportedError
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.microvm import adding, initramfs, kernelfile, modulefile, modules
from minicontainer.microvm.devices import ALWAYS, Device

Member = tuple[int, tuple[int, int], bytes]  # mode, device, content


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of this package, and a cache, of this test."""
    directory = tmp_path / "libexec"
    directory.mkdir()
    (directory / "guestinit").write_bytes(b"guest's init")
    (directory / "init").write_bytes(b"container's init")
    monkeypatch.setattr(initramfs, "LIBEXEC", str(directory))
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return directory


@pytest.fixture
def kernel(tmp_path: Path) -> kernelfile.LinuxKernel:
    return kernelfile.read(str(linuxes.tree(tmp_path / "k")))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of modules of each archive that is made from now on."""
    counts: list[int] = []
    true = initramfs.base

    def counting(kernel: kernelfile.LinuxKernel, files: list[str]) -> bytes:
        counts.append(len(files))
        return true(kernel, files)

    monkeypatch.setattr(initramfs, "base", counting)
    return counts


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/minicontainer/initramfs").iterdir(), key=lambda file: file.stat().st_size)


def content(kernel: kernelfile.LinuxKernel, devices: Sequence[Device] = ALWAYS) -> bytes:
    fd = initramfs.open_base(kernel, devices)
    try:
        with Kernel(f"/proc/self/fd/{fd}") as file:  # as the loader of a machine opens it
            return file.read(0, file.size, "the initramfs")
    finally:
        os.close(fd)


def members(archive: bytes) -> Iterator[tuple[str, Member]]:
    """As Linux reads "newc" (buffer-format.rst)."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        at += 110
        name = archive[at : at + fields[11] - 1].decode()
        at = -(-(at + fields[11]) // 4) * 4
        if name == cpio.TRAILER:
            assert at == len(archive)
            return
        yield name, (fields[1], (fields[9], fields[10]), archive[at : at + fields[6]])
        at = -(-(at + fields[6]) // 4) * 4


def test_what_it_holds(kernel: kernelfile.LinuxKernel) -> None:
    archive = content(kernel)
    found = dict(members(archive))
    assert [name for name, (mode, _, _) in found.items() if stat.S_ISDIR(mode)] == [*initramfs.DIRECTORIES]
    assert found["init"] == (stat.S_IFREG | 0o755, (0, 0), b"guest's init")
    assert found["init-helper"][2] == b"container's init"
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, (5, 1), b"")
    files = [name for name in found if name.startswith("modules/")]
    names = [*linuxes.ORDER, "virtio_rng"]
    assert files == sorted(files) == [f"modules/{i:02}-{name}.ko" for i, name in enumerate(names)]
    assert found[files[4]][2] == modulefile.stripped(linuxes.signed(linuxes.module("fuse")))


def test_names_sort_with_many_modules(tmp_path: Path) -> None:
    needs = {"virtio_mmio": ()} | {f"m{i}": () for i in range(101)}
    directory = linuxes.modules(tmp_path / "m", needs)
    kernel = kernelfile.LinuxKernel(str(tmp_path / "none"), "6.1", str(directory))
    devices = [Device(0, name) for name in list(needs)[1:]]
    files = [name for name, _ in members(content(kernel, devices)) if name.startswith("modules/")]
    assert files == sorted(files)
    assert [name.partition("-")[2] for name in files] == [f"{name}.ko" for name in needs]


def test_it_is_made_once(kernel: kernelfile.LinuxKernel, made: list[int], tmp_path: Path) -> None:
    first = content(kernel)
    _, archive = kept(tmp_path)
    assert archive.read_bytes() == first
    os.utime(archive, ns=(1, archive.stat().st_mtime_ns))
    assert content(kernel) == first
    assert made == [7]
    assert archive.stat().st_atime_ns > 1  # it was used


def test_one_that_was_written_to_is_made_again(kernel: kernelfile.LinuxKernel, made: list[int], tmp_path: Path) -> None:
    first = content(kernel)
    kept(tmp_path)[1].write_bytes(bytes(len(first)))
    assert content(kernel) == first
    assert made == [7, 7]


def test_a_second_start_reads_no_list_and_no_module(
    kernel: kernelfile.LinuxKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content(kernel)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(modules, "load_order", fail)
    monkeypatch.setattr(modulefile, "read", fail)
    assert content(kernel) == first


def newer(path: Path) -> None:
    """As a build writes it: another time."""
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "a program": lambda modules, programs: newer(programs / "guestinit"),
    "another program": lambda modules, programs: (programs / "init").write_bytes(b"longer than it was"),
    "a module": lambda modules, programs: newer(modules / "kernel/fs/fuse/fuse.ko"),
    "a list": lambda modules, programs: newer(modules / "modules.dep"),
    "built-in modules": lambda modules, programs: (modules / "modules.builtin").write_text("x/y.ko\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_has_changed_counts(
    kernel: kernelfile.LinuxKernel, made: list[int], programs: Path, change: Callable[[Path, Path], object]
) -> None:
    assert kernel.modules is not None
    content(kernel)
    change(Path(kernel.modules), programs)
    content(kernel)
    content(kernel)
    assert made == [7, 7]


def test_other_modules_are_another_archive(kernel: kernelfile.LinuxKernel, made: list[int]) -> None:
    content(kernel)
    content(kernel, [])
    content(kernel._replace(modules=None, config=None))
    content(kernel)
    assert made == [7, 3, 0]


SPOILS: dict[str, Callable[[Path], object]] = {
    "the archive is gone": lambda file: file.unlink(),
    "others can write it": lambda file: file.chmod(0o666),
    "the directory": lambda file: file.parent.chmod(0o777),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("which", [0, 1], ids=["list", "archive"])
def test_what_is_not_ours_and_whole_is_not_believed(
    kernel: kernelfile.LinuxKernel, made: list[int], tmp_path: Path, spoil: Callable[[Path], object], which: int
) -> None:
    first = content(kernel)
    spoil(kept(tmp_path)[which])
    assert content(kernel) == first
    assert len(made) == 2


@pytest.mark.parametrize("damage", [b"", b"\n", b"\xff\0", b"1 2 /nonexistent"])
def test_a_damaged_list_is_made_again(
    kernel: kernelfile.LinuxKernel, made: list[int], tmp_path: Path, damage: bytes
) -> None:
    first = content(kernel)
    kept(tmp_path)[0].write_bytes(damage)
    assert content(kernel) == first
    assert content(kernel) == first
    assert len(made) == 2


def test_where_nothing_can_be_kept_it_is_in_memory(
    kernel: kernelfile.LinuxKernel, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content(kernel)
    for home in ("/proc", "/dev/null"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        assert content(kernel) == first
    assert len(made) == 3


def test_a_kernel_that_loads_signed_modules_only_gets_them_whole(tmp_path: Path) -> None:
    file = linuxes.tree(tmp_path / "k", config=f"{linuxes.CONFIG}\n{initramfs.FORCED}=y\n")
    found = dict(members(content(kernelfile.read(str(file)))))
    assert found["modules/04-fuse.ko"][2] == linuxes.signed(linuxes.module("fuse"))


def test_a_kernel_with_all_built_in_needs_no_modules(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(linuxes.vmlinux("6.6.6", *linuxes.WHOLE))
    found = dict(members(content(kernelfile.read(str(path)))))
    assert not [name for name in found if name.startswith("modules/")]
    assert found["init"][2] == b"guest's init"


def test_a_kernel_that_cannot_run_a_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir(0o700)
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "state"))
    path = tmp_path / "vmlinux"
    path.write_bytes(linuxes.vmlinux("6.6.6", *linuxes.WHOLE[1:]))
    entry = adding.add(str(path))
    with pytest.raises(UnsupportedError) as caught:
        initramfs.open_base(entry.kernel)
    assert one_line(caught.value, "kernel", "has no initramfs (CONFIG_BLK_DEV_INITRD)", "minicontainer kernel fetch")


def test_a_missing_program_is_named(kernel: kernelfile.LinuxKernel, programs: Path) -> None:
    (programs / "guestinit").unlink()
    with pytest.raises(UnsupportedError) as caught:
        initramfs.open_base(kernel)
    assert one_line(caught.value, f"there is no {programs}/guestinit", "make build")


def test_a_module_that_is_gone_is_named(kernel: kernelfile.LinuxKernel) -> None:
    assert kernel.modules is not None
    Path(kernel.modules, "kernel/fs/fuse/fuse.ko").unlink()
    with pytest.raises(FileNotFoundError, match=r"fuse\.ko"):
        initramfs.open_base(kernel)
    shutil.rmtree(kernel.modules)


def test_no_descriptor_is_left(kernel: kernelfile.LinuxKernel) -> None:
    before = os.listdir("/proc/self/fd")
    content(kernel)
    content(kernel)
    assert os.listdir("/proc/self/fd") == before

"""Modules of machines: which files, in which order, unpacked and made smaller; and what is said of damaged ones."""

from __future__ import annotations

import lzma
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kernels as k
import linuxes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import one_line

from minicontainer.errors import Error, UnsupportedError
from minicontainer.microvm import kernelfile, modulefile, modules, sections

WANTED = ["virtio_mmio", "virtio_console", "virtiofs"]


def kernel(directory: Path | None, config: Path | None = None) -> kernelfile.LinuxKernel:
    """A kernel with these modules, in whose image nothing is built in."""
    file = (directory or config or Path()).parent / "k"
    file.write_bytes(linuxes.vmlinux())
    place = str(directory) if directory is not None else None
    return kernelfile.LinuxKernel(str(file), linuxes.RELEASE, place, str(config) if config is not None else None)


def order(directory: Path, wanted: list[str] = WANTED, **options: list[str]) -> list[str]:
    """The names of the files."""
    files = modules.load_order(kernel(directory), wanted, **options)
    assert all(os.path.isfile(path) for path in files)
    return [str(modulefile.name_of(path)) for path in files]


# ---- order


@pytest.mark.parametrize("listed", [True, False], ids=["modules.dep", "modinfo"])
def test_an_algorithm_that_a_module_asks_for_by_name_comes_before_it(tmp_path: Path, listed: bool) -> None:
    needs = {"lib/libcrc32c": (), "fs/erofs": ("libcrc32c",), "fs/ext4": ()}
    directory = linuxes.modules(tmp_path / "m", {**needs, "crypto/crc32c_generic": ()}, listed=listed)
    assert order(directory, ["erofs", "ext4"]) == ["crc32c_generic", "libcrc32c", "erofs", "ext4"]
    assert order(directory, ["ext4"]) == ["crc32c_generic", "ext4"]
    directory = linuxes.modules(tmp_path / "n", needs, listed=listed)
    assert order(directory, ["erofs", "ext4"]) == ["libcrc32c", "erofs", "ext4"], "where the kernel has it built in"


@pytest.mark.parametrize("listed", [True, False], ids=["modules.dep", "modinfo"])
@pytest.mark.parametrize("suffix", ["", ".xz", ".zst", ".gz"])
def test_what_is_needed_comes_first(tmp_path: Path, listed: bool, suffix: str) -> None:
    directory = linuxes.modules(tmp_path / "m", listed=listed, suffix=suffix)
    assert order(directory) == linuxes.ORDER
    assert order(directory, ["virtio-rng"]) == ["virtio", "virtio_ring", "virtio_rng"]
    assert order(directory, ["virtio_rng", "virtio_ring"]) == ["virtio", "virtio_ring", "virtio_rng"]


def test_what_is_built_in_is_no_file(tmp_path: Path) -> None:
    needs = {name: needs for name, needs in linuxes.NEEDS.items() if "fuse" not in name and "virtio/virtio" not in name}
    directory = linuxes.modules(
        tmp_path / "m",
        dict.fromkeys(needs, ()),
        built_in=["fs/fuse/virtiofs", "drivers/virtio/virtio_mmio", "drivers/virtio/virtio-ring"],
    )
    assert order(directory) == ["virtio_console"]


def test_what_a_module_needs_may_be_built_in(tmp_path: Path) -> None:
    made = linuxes.modules(tmp_path / "n", {"c": ()}, built_in=["x/b"], listed=False)
    (made / "kernel/a.ko").write_bytes(linuxes.module("a", "b", "c"))
    assert order(made, ["a"]) == ["c", "a"]


def test_optional_ones_are_loaded_where_they_are(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m")
    assert order(directory, ["virtio_mmio"], optional=["nope", "virtio_rng"])[-1] == "virtio_rng"


def test_a_missing_one_is_named_with_its_option(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m", {"drivers/virtio/virtio_mmio": ()})
    with pytest.raises(UnsupportedError) as caught:
        modules.load_order(kernel(directory), WANTED)
    assert one_line(
        caught.value, f"kernel {tmp_path}/k", "has no virtio_console (CONFIG_VIRTIO_CONSOLE)", linuxes.RELEASE
    )
    assert one_line(caught.value, "minicontainer kernel fetch")
    with pytest.raises(UnsupportedError, match="has no nosuch "):
        modules.load_order(kernel(directory), ["nosuch"])


def test_without_modules_all_must_be_built_in(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_CONSOLE=y\nCONFIG_VIRTIO_FS=m\n")
    assert modules.load_order(kernel(None, config), WANTED[:2]) == []
    with pytest.raises(UnsupportedError) as caught:
        modules.load_order(kernel(None, config), WANTED)
    assert one_line(caught.value, "has no virtiofs (CONFIG_VIRTIO_FS) built in, and its modules are nowhere")


def test_a_configuration_knows_what_is_built_in_too(tmp_path: Path) -> None:
    """A tree without modules.builtin, as a kernel's builder may have it."""
    directory = linuxes.modules(tmp_path / "m", {"drivers/virtio/virtio_mmio": ()})
    config = tmp_path / "config"
    config.write_text("CONFIG_VIRTIO_FS=y\n")
    assert len(modules.load_order(kernel(directory, config), ["virtio_mmio", "virtiofs"])) == 1
    with pytest.raises(UnsupportedError, match="CONFIG_VIRTIO_CONSOLE"):
        modules.load_order(kernel(directory, config), WANTED)


def test_the_kernel_s_own_are_less_than_updates(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m", listed=False)
    file = directory / "updates/dkms/virtiofs.ko.xz"
    file.parent.mkdir(parents=True)
    file.write_bytes(lzma.compress(linuxes.module("virtiofs")))
    assert modules.load_order(kernel(directory), ["virtiofs"]) == [str(file)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kernel/a.ko", "has the line 'kernel/a.ko'"),
        ("kernel/a.ko: ../../x.ko", "has the line"),
        ("/etc/a.ko:", "has the line"),
        ("kernel/a: kernel/b.ko", "has the line"),
        ("kernel/a.ko: kernel/b.ko", "names kernel/b.ko, and has no line of it"),
        ("\udcff:", "has the line"),
    ],
)
def test_a_damaged_list_is_named(tmp_path: Path, line: str, words: str) -> None:
    directory = linuxes.modules(tmp_path / "m", {"a": ()})
    (directory / "modules.dep").write_text(f"# comment\n{line}\n", errors="surrogateescape")
    with pytest.raises(UnsupportedError) as caught:
        modules.load_order(kernel(directory), ["a"])
    assert one_line(caught.value, f"{directory}/modules.dep", words, "depmod")


def test_a_module_that_says_it_needs_what_is_not_there(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m", {"a": ()}, listed=False)
    (directory / "kernel/a.ko").write_bytes(linuxes.module("a", "gone"))
    with pytest.raises(UnsupportedError, match=r"kernel/a\.ko: needs gone, which is neither there nor built in"):
        modules.load_order(kernel(directory), ["a"])


def test_a_listed_file_that_is_gone(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m")
    (directory / "kernel/fs/fuse/fuse.ko").unlink()
    (path,) = (path for path in modules.load_order(kernel(directory), WANTED) if path.endswith("/fuse.ko"))
    with pytest.raises(OSError, match="No such file"):
        modulefile.read(path)


def test_circles_end(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m", {"a": ("b",), "b": ("c",), "c": ("a", "c")})
    assert order(directory, ["a", "b"]) == ["c", "b", "a"]


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=4), min_size=6, max_size=6), st.lists(NAMES, min_size=1))
def test_any_graph_is_put_in_order(needs: dict[str, list[str]], wanted: list[str]) -> None:
    """Each once; and where there is no circle, behind all that it needs."""
    tree = object.__new__(modules.Tree)
    tree.directory, tree.built_in = "/", set()
    tree._depends = {f"{name}.ko": [f"{below}.ko" for below in needs[name]] for name in "abcdef"}
    tree._files = {name: f"{name}.ko" for name in "abcdef"}
    files: dict[str, None] = {}
    for name in wanted:
        tree.add(name, files)
    assert {f"{name}.ko" for name in wanted} <= set(files)
    places = {path: i for i, path in enumerate(files)}
    if all(below > name for name, others in needs.items() for below in others):
        assert all(places[below] < places[path] for path in files for below in tree._depends[path])


@given(st.binary(max_size=300))
def test_any_list_is_read_or_refused(raw: bytes) -> None:
    class Lines(modules.Tree):
        def _lines(self, name: str) -> list[str]:
            return [line for line in os.fsdecode(raw).split("\n") if line]

        def _walk(self) -> list[str]:
            return []

    caught = None
    try:
        Lines("/nonexistent").has("x")
    except Error as e:
        caught = e
    assert caught is None or one_line(caught, "modules.dep")


# ---- files

CONTENT = linuxes.signed(linuxes.module("x", "y", "z-z"))
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "ko": lambda content: content,
    "ko.xz": lambda content: lzma.compress(content, check=lzma.CHECK_CRC32),
    "ko.zst": k.zstd,
    "ko.gz": k.gzip,
}


@pytest.mark.parametrize("suffix", PACKED)
def test_each_packing_is_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"virtio-x.{suffix}"
    file.write_bytes(PACKED[suffix](CONTENT))
    assert modulefile.read(str(file)) == CONTENT
    assert modulefile.name_of(str(file)) == "virtio_x"
    assert list(modulefile.imports(CONTENT)) == ["y", "z_z"]


@pytest.mark.parametrize("suffix", PACKED)
def test_damaged_ones_are_named(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x.{suffix}"
    packed = PACKED[suffix](CONTENT)
    for content in (packed[:9], packed[:-9] if suffix != "ko" else b"x" * 99, b""):
        file.write_bytes(content)
        with pytest.raises(UnsupportedError) as caught:
            modulefile.read(str(file))
        assert one_line(caught.value, f"module {file}", "install the kernel's package again")


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulefile, "MOST", 1000)
    for suffix, pack in PACKED.items():
        file = tmp_path / f"x.{suffix}"
        file.write_bytes(pack(CONTENT + bytes(5000)))
        with pytest.raises(UnsupportedError):
            modulefile.read(str(file))


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        ("20 10", 16),  # one byte, with the flag of a single segment
        ("00 58", None),  # a window, and no size
        ("40 58 00 01", 512),
        ("60 00 01", 512),
        ("a0 00 00 01 00", 65536),
        ("e0 00 00 00 00 01 00 00 00", 1 << 32),
        ("63 aa bb cc dd 00 01", 512),  # with a dictionary
        ("e0 00", None),
        ("", None),
    ],
)
def test_the_size_of_a_frame(frame: str, size: int | None) -> None:
    assert modulefile.zstd_size(b"\x28\xb5\x2f\xfd" + bytes.fromhex(frame)) == size


def names(content: bytes) -> list[bytes]:
    return [s.name for s in sections.sections_of(content, sections.header_of(content))]


def test_signature_and_debug_information_go_and_all_else_stays() -> None:
    small = modulefile.stripped(CONTENT)
    before = sections.sections_of(CONTENT, sections.header_of(CONTENT))
    after = sections.sections_of(small, sections.header_of(small))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old.name in (b".BTF", b".debug_info"):
            assert new == sections.Section(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        else:
            assert new._replace(sh_offset=0) == old._replace(sh_offset=0)
            assert small[new.in_file] == CONTENT[old.in_file]
            assert new.sh_offset % max(new.sh_addralign, 1) == 0 or new.name == b".bss"
    assert len(small) < len(CONTENT) - 500
    assert modulefile.information(small) == modulefile.information(CONTENT)
    assert modulefile.stripped(small) == small


def test_the_signature_alone() -> None:
    plain = linuxes.module("x")
    assert modulefile.unsigned(linuxes.signed(plain)) == plain
    assert modulefile.unsigned(plain) == plain
    damaged = b"x" + struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, 5000) + modulefile.SIGNED
    assert modulefile.unsigned(damaged) == damaged


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255), st.integers(0, len(CONTENT)))
def test_a_damaged_module_is_left_alone_or_made_smaller(at: int, byte: int, end: int) -> None:
    content = bytearray(CONTENT)
    content[at] = byte
    for damaged in (bytes(content), bytes(content[:end])):
        assert len(modulefile.stripped(damaged)) <= len(damaged) + 4096 * 16
        modulefile.information(damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_module(raw: bytes) -> None:
    assert modulefile.stripped(sections.IDENT + raw) == modulefile.unsigned(sections.IDENT + raw)
    modulefile.zstd_size(raw)
    assert modulefile.information(raw) == {}


def test_few_modules_are_imported_to_find_a_kernel_s() -> None:
    """Each costs a share of a start."""
    code = "import sys; from minicontainer.microvm import kernels, initramfs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"typing", "re", "enum", "contextlib", "collections", "json", "lzma", "zlib", "shutil", "subprocess"}
    assert not heavy & set(done.stdout.split())

"""The kernel in libkrunfw: found without running its code, and registered as a kernel that boots without it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import kernels as k
import linuxes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import Load, one_line

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.kernel import Kernel, KernelError
from minicontainer.microvm import adding, kernelfile, krunfw, modules, store
from minicontainer.microvm.devices import ALWAYS, drivers

IMAGE = k.CODE.ljust(0x200, b"\x90") + linuxes.banner("6.12.9") + b"\0".join(linuxes.WHOLE)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir(0o700)
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "state"))


def find(path: Path) -> krunfw.Bundle:
    with Kernel(str(path)) as file:
        assert krunfw.is_library(file)
        return krunfw.find(file)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "libkrunfw.so.5"
    linuxes.libkrunfw(path, image=IMAGE)
    return path


@pytest.mark.parametrize(
    "options", [["-O0"], ["-O1"], ["-O2"], ["-Os"], ["-O3", "-fcf-protection=none"], ["-O2", "-s"]]
)
def test_however_it_was_compiled(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "x.so"
    linuxes.libkrunfw(path, options=options, image=IMAGE)
    bundle = find(path)
    assert (bundle.load, bundle.entry, bundle.release) == (linuxes.LOAD, linuxes.LOAD + 0x120, "6.12.9")
    assert path.read_bytes()[bundle.offset :].startswith(IMAGE)
    assert bundle.size <= 65536


def test_before_version_5_there_was_no_entry(tmp_path: Path) -> None:
    source = linuxes.LIBRARY.replace(", size_t *entry_addr", "").replace("    *entry_addr = {entry:#x};\n", "")
    linuxes.libkrunfw(tmp_path / "x.so", image=IMAGE, source=source)
    bundle = find(tmp_path / "x.so")
    assert bundle.load == bundle.entry == linuxes.LOAD


SOURCES = {
    "no kernel": (linuxes.LIBRARY.replace("KERNEL_BUNDLE", "OTHER"), "is a library without a kernel"),
    "no function": (linuxes.LIBRARY.replace("krunfw_get_kernel", "other"), "is a library without a kernel"),
    "stores something else": (linuxes.LIBRARY.replace("*size = ", "*size = 5 + "), "is not of a known form: it stores"),
    "stores nothing": (
        linuxes.LIBRARY.replace("*load_addr =", "(void)").replace("*entry_addr =", "(void)"),
        "is not of a known form",
    ),
    "misaligned": (linuxes.LIBRARY.replace("*load_addr = {load:#x}", "*load_addr = {load:#x} + 8"), "is entered at"),
    "entered elsewhere": (
        linuxes.LIBRARY.replace("*entry_addr = {entry:#x}", "*entry_addr = {entry:#x} + 0x100000"),
        "is entered at",
    ),
}


@pytest.mark.parametrize(("source", "words"), SOURCES.values(), ids=SOURCES)
def test_of_another_form_it_is_refused(tmp_path: Path, source: str, words: str) -> None:
    path = tmp_path / "x.so"
    linuxes.libkrunfw(path, image=IMAGE, source=source)
    with pytest.raises(KernelError) as caught:
        adding.add(str(path))
    assert one_line(caught.value, str(path), words)
    assert store.registered() == []


def test_without_a_banner_it_is_no_linux(tmp_path: Path) -> None:
    linuxes.libkrunfw(tmp_path / "x.so", image=b"\x90" * 999)
    with pytest.raises(KernelError, match="holds no kernel that says of which release"):
        find(tmp_path / "x.so")


def test_its_code_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = (
        linuxes.LIBRARY
        + '__attribute__((constructor)) void f(void) {{ int creat(const char *, int); creat("%s", 0); }}'
    )
    linuxes.libkrunfw(tmp_path / "x.so", image=IMAGE, source=source % mark)
    adding.add(str(tmp_path / "x.so"))
    assert not mark.exists()


def test_it_is_registered_as_an_elf_file_that_boots_by_itself(library: Path, load: Load) -> None:
    entry = adding.add(str(library), default=True)
    kernel = entry.kernel
    assert (entry.name, kernel.release, kernel.kind) == ("libkrunfw-6.12.9", "6.12.9", "libkrunfw")
    assert (kernel.mode, kernel.announce, kernel.modules, kernel.lacks) == ("linux64", "command line", None, ())
    assert modules.load_order(kernel, drivers(ALWAYS)[0]) == []
    entered, memory = load(Path(kernel.path), "64M", mode=kernel.mode, append="x")
    assert (entered.kind, entered.mode, entered.rip, entered.linux) == ("vmlinux", "long", linuxes.LOAD + 0x120, True)
    assert memory.read(linuxes.LOAD, len(IMAGE)) == IMAGE
    size = os.path.getsize(kernel.path) - krunfw.PAGE
    assert (linuxes.LOAD, size + krunfw.BSS) in entered.used
    assert kernelfile.read(kernel.path).release == "6.12.9"


def test_it_has_no_modules(library: Path, tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m")
    with pytest.raises(SpecError, match="a kernel of libkrunfw has none"):
        adding.add(str(library), modules=str(directory))


@given(st.binary(max_size=60))
def test_any_code_is_read(code: bytes) -> None:
    assert all(0 <= value < 1 << 32 for value in krunfw.stores(code))


def test_stores_to_each_register() -> None:
    code = b"".join(bytes([rex, 0xC7, reg]) + struct.pack("<I", reg) for rex, reg in [(0x48, 7), (0x48, 6), (0x49, 0)])
    assert list(krunfw.stores(b"\xf3\x0f\x1e\xfa" + code + b"\xc3")) == [7, 6, 0]
    assert list(krunfw.stores(code[:-1])) == [7, 6]


@given(data=st.data())
def test_a_damaged_library_is_refused_or_read(
    library: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(library.read_bytes())
    interesting = [*range(64), *range(0x300, 0x600), *range(len(content) - 40 * 64, len(content))]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.sampled_from(interesting))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.so"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 100]))])
    with Kernel(str(path)) as file:
        error, bundle = None, None
        try:
            bundle = krunfw.find(file)
        except KernelError as e:
            error = e
    if bundle is None:
        assert error is not None
        assert one_line(error)
    else:
        assert bundle.load <= bundle.entry < bundle.load + bundle.size + 65536
        assert bundle.offset + bundle.size <= path.stat().st_size

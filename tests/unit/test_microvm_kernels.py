"""Kernels for machines: which is found, what a file says, and what a registered one is."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import kernels as k
import linuxes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import one_line

from minicontainer.errors import Error, SpecError, UnsupportedError
from minicontainer.kvm.boot.kernel import KernelError
from minicontainer.microvm import adding, build, check, features, initramfs, kernelfile, kernels, modules, store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for registered kernels, and a host that has none of its own."""
    root = tmp_path / "state"
    root.mkdir(0o700)
    monkeypatch.setenv("MINICONTAINER_ROOT", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "BOOT", str(tmp_path / "host/boot"))
    monkeypatch.setattr(kernels, "MODULES", (str(tmp_path / "host/lib/modules"),))
    return root / "kernels"


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


# ---- files


def test_a_bzimage_says_its_release_and_its_modules_lie_beside_it(tmp_path: Path) -> None:
    path = linuxes.tree(tmp_path / "x")
    assert kernelfile.read(str(path)) == kernelfile.LinuxKernel(
        str(path),
        linuxes.RELEASE,
        str(tmp_path / f"x/lib/modules/{linuxes.RELEASE}"),
        str(tmp_path / f"x/boot/config-{linuxes.RELEASE}"),
    )


def test_modules_of_a_merged_usr(tmp_path: Path) -> None:
    kernel = kernelfile.read(str(linuxes.tree(tmp_path, usr="usr/")))
    assert kernel.modules == str(tmp_path / f"usr/lib/modules/{linuxes.RELEASE}")


def test_a_kernel_among_its_modules(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / linuxes.RELEASE)
    path = write(directory / "vmlinuz", linuxes.bzimage())
    write(directory / "config", linuxes.CONFIG.encode())
    kernel = kernelfile.read(path)
    assert (kernel.modules, kernel.config) == (str(directory), str(directory / "config"))


def test_a_directory_that_holds_no_modules_is_none(tmp_path: Path) -> None:
    (tmp_path / f"lib/modules/{linuxes.RELEASE}").mkdir(parents=True)
    assert kernelfile.read(write(tmp_path / "boot/x", linuxes.bzimage())).modules is None


@pytest.mark.parametrize(("pvh", "mode"), [(True, None), (False, "linux64")])
def test_an_elf_file_is_entered_as_it_can_be(tmp_path: Path, pvh: bool, mode: str | None) -> None:
    kernel = kernelfile.read(write(tmp_path / "vmlinux", linuxes.vmlinux("6.18.55", pvh=pvh)))
    assert (kernel.release, kernel.mode, kernel.modules) == ("6.18.55", mode, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x" * 1000, "is neither a bzImage nor an ELF file"),
        (k.bzimage(), "does not say of which release"),
        (linuxes.bzimage("../../etc"), "does not say of which release"),
        (linuxes.bzimage("6/1"), "does not say of which release"),
        (linuxes.bzimage("6" * 65), "does not say of which release"),
        (k.changed(linuxes.bzimage(), 0x20E, "<H", 0xFFFF), "does not say of which release"),
        (k.pvh(), "does not say of which release"),
        (k.simple(32), "is neither a bzImage nor an ELF file"),
        (k.changed(linuxes.vmlinux(), k.TYPE, "<H", 3), "link it with -no-pie"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path / "x", content)
    with pytest.raises(KernelError) as caught:
        kernelfile.read(path)
    assert one_line(caught.value, path, words)


@given(st.binary(max_size=100))
def test_a_release_is_a_name_of_a_directory(text: bytes) -> None:
    from minicontainer.microvm import kernelimage

    found = kernelimage.release_at(text)
    assert "/" not in found
    assert not found.startswith(".")
    assert text.startswith(found.encode())


# ---- which is found


def test_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is taken away, and the next is found."""
    own = os.uname().release
    for release in (own, "5.10.0-1-amd64", "5.9.99-1-amd64"):
        linuxes.tree(tmp_path / "host", release)
    write(tmp_path / "host/boot/vmlinuz-9.9", linuxes.bzimage("9.9"))  # without modules
    write(tmp_path / "host/boot/vmlinuz-old", b"no kernel")
    file = str(linuxes.tree(tmp_path / "other"))
    for release, name in (("6.10.1", "newest"), ("6.9.1", "chosen")):
        adding.add(str(linuxes.tree(tmp_path / release, release)), name=name, default=name == "chosen")
    assert kernels.find(file).path == file
    assert kernels.find("newest").release == "6.10.1"
    assert kernels.find().name == "chosen"
    store.remove("chosen")
    assert kernels.find().path == str(tmp_path / f"host/boot/vmlinuz-{own}")
    shutil.rmtree(tmp_path / f"host/lib/modules/{own}")
    assert kernels.find().name == "newest"
    store.remove("newest")
    assert kernels.find().path == str(tmp_path / "host/boot/vmlinuz-5.10.0-1-amd64")
    shutil.rmtree(tmp_path / "host")
    with pytest.raises(UnsupportedError) as caught:
        kernels.find()
    assert one_line(caught.value, "no kernel for a machine is registered", "minicontainer kernel fetch, or --kernel")


def test_the_newest_registered_one_is_that_of_the_newest_release(tmp_path: Path) -> None:
    for release in ("6.9.1", "6.10.1", "6.10.0-rc9"):
        adding.add(str(linuxes.tree(tmp_path / release, release)))
    assert kernels.find().release == "6.10.1"


def test_the_host_s_kernel_may_lie_among_its_modules(tmp_path: Path) -> None:
    own = os.uname().release
    directory = linuxes.modules(tmp_path / f"host/lib/modules/{own}")
    path = write(directory / "vmlinuz", linuxes.bzimage(own))
    assert kernels.find().path == path


def test_a_name_without_a_slash_is_a_registered_one_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", linuxes.bzimage("6.6.6"))
    assert kernels.find("mine").path == "mine"
    adding.add(str(linuxes.tree(tmp_path / "x")), name="mine")
    assert (kernels.find("mine").name, kernels.find("./mine").path) == ("mine", "./mine")


@pytest.mark.parametrize(("chosen", "error"), [("", SpecError), ("nope", SpecError), ("./nope", KernelError)])
def test_the_chosen_one_must_be_there(chosen: str, error: type[Error]) -> None:
    with pytest.raises(error) as caught:
        kernels.find(chosen)
    assert one_line(caught.value)


def test_releases_are_sorted_by_their_numbers() -> None:
    ordered = ["5.9.99-1", "5.10.0-1", "6.1.0-9-amd64", "6.1.0-50-amd64", "6.10.0-rc9", "6.10.1"]
    assert sorted({*ordered}, key=kernels.release_key) == ordered


@given(st.lists(st.text(max_size=8), max_size=5))
def test_any_texts_are_sorted(texts: list[str]) -> None:
    sorted(texts, key=kernels.release_key)


def test_words_for_devices() -> None:
    words = "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"
    assert kernels.device_words([(0xD0000000, 5), (0xD0001000, 6)]) == words


# ---- registered ones


def test_a_copy_is_registered_with_its_modules_and_configuration(tmp_path: Path, home: Path) -> None:
    file = linuxes.tree(tmp_path / "x")
    (tmp_path / f"x/lib/modules/{linuxes.RELEASE}/build").symlink_to(tmp_path)
    entry = adding.add(str(file))
    shutil.rmtree(tmp_path / "x")
    assert entry == store.find(linuxes.RELEASE) == store.registered()[0]
    kernel = entry.kernel
    directory = home / linuxes.RELEASE
    places = (str(directory / "kernel"), str(directory / "modules"), str(directory / "config"))
    assert (kernel.path, kernel.modules, kernel.config) == places
    assert (kernel.kind, kernel.announce, kernel.lacks, kernel.mode) == ("linux", "acpi", (), None)
    assert (entry.source, entry.is_default, entry.damage) == (str(file), False, "")
    assert entry.size > 1000
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert sorted(path.name for path in directory.iterdir()) == ["config", "kernel", "kernel.json", "modules"]
    assert not (directory / "modules/build").is_symlink()
    files = modules.load_order(kernel, ["virtio_mmio", "virtio_console", "virtiofs"])
    assert [Path(path).stem for path in files] == linuxes.ORDER


def test_modules_from_elsewhere(tmp_path: Path) -> None:
    directory = linuxes.modules(tmp_path / "m")
    entry = adding.add(write(tmp_path / "k", linuxes.bzimage()), modules=str(directory), name="mine")
    assert entry.name == "mine"
    assert entry.kernel.modules is not None
    with pytest.raises(SpecError) as caught:
        adding.add(str(tmp_path / "k"), modules=str(tmp_path))
    assert one_line(caught.value, "modules", str(tmp_path), "is no directory of modules")


def test_a_kernel_that_lacks_what_machines_need_is_registered_and_known(tmp_path: Path) -> None:
    image = linuxes.vmlinux("6.6.6", b"devtmpfs\0", b"ACPI0007", b"virtio-mmio\0", b"virtio_console\0", pvh=False)
    entry = adding.add(write(tmp_path / "vmlinux", image))
    assert (entry.kernel.mode, entry.kernel.lacks) == ("linux64", ("initramfs", "virtiofs"))
    found = {finding.feature.name: finding.state for finding in check.check(entry.kernel)}
    assert (found["console"], found["virtiofs"], found["command-line"]) == ("built in", "missing", "missing")


def test_devices_are_announced_by_the_command_line_where_there_is_no_acpi(tmp_path: Path) -> None:
    entry = adding.add(write(tmp_path / "vmlinux", linuxes.vmlinux("6.6.6", *linuxes.WHOLE)))
    assert (entry.kernel.announce, entry.kernel.lacks) == ("command line", ())
    both = adding.add(write(tmp_path / "vmlinux", linuxes.vmlinux("6.6.7", *linuxes.WHOLE, b"ACPI0007")))
    assert (both.kernel.announce, both.kernel.lacks) == ("acpi", ())
    neither = [word for word in linuxes.WHOLE if b"device" not in word]
    none = adding.add(write(tmp_path / "vmlinux", linuxes.vmlinux("6.6.8", *neither)))
    assert none.kernel.lacks == ("acpi", "command-line")


def test_a_configuration_inside_the_kernel_is_read(tmp_path: Path) -> None:
    for release, content in (("6.6.6", linuxes.ikconfig(linuxes.CONFIG)), ("6.6.7", linuxes.ikconfig("x")[:20])):
        path = write(tmp_path / release, linuxes.vmlinux(release, content, *linuxes.WHOLE))
        with build.Build(kernelfile.read(path)) as built:
            by_config = built.value("CONFIG_VIRTIO_FS") == "m"
            assert by_config == (release == "6.6.6")
            state = built.state(features.of_module("virtiofs"))
            assert state == (build.MODULE if by_config else build.BUILT_IN)


def test_of_a_packed_kernel_the_image_is_searched(tmp_path: Path) -> None:
    packed = k.PACKERS["gzip"](linuxes.vmlinux(linuxes.RELEASE, *linuxes.WHOLE))
    kernel = kernelfile.read(write(tmp_path / "x", linuxes.bzimage(payload=packed)))
    found = {finding.feature.name: finding.state for finding in check.check(kernel)}
    assert found["virtiofs"] == found["initramfs"] == "built in"
    assert found["acpi"] == "missing"


def test_what_nothing_tells_is_unknown(tmp_path: Path) -> None:
    kernel = kernelfile.read(write(tmp_path / "x", linuxes.bzimage(payload=b"no known format" * 9)))
    findings = check.check(kernel)
    assert {finding.state for finding in findings} == {"unknown"}
    assert not any(finding.is_lacking for finding in findings)
    assert modules.load_order(kernel, ["virtiofs"]) == []  # the guest says it


def test_a_module_of_the_configuration_without_a_file_is_missing(tmp_path: Path) -> None:
    file = linuxes.tree(tmp_path)
    (tmp_path / f"lib/modules/{linuxes.RELEASE}/kernel/fs/fuse/virtiofs.ko").unlink()
    (tmp_path / f"lib/modules/{linuxes.RELEASE}/modules.dep").unlink()
    found = {finding.feature.name: finding for finding in check.check(kernelfile.read(str(file)))}
    assert found["virtiofs"].is_lacking
    assert found["console"].file.endswith("kernel/drivers/char/virtio_console.ko")
    assert (found["acpi"].state, found["acpi"].is_needed) == ("built in", False)


def test_names_are_checked_and_taken_once(tmp_path: Path, home: Path) -> None:
    file = str(linuxes.tree(tmp_path / "x"))
    for name in ("", "../x", "_default", ".x", "a b"):
        with pytest.raises(SpecError, match="name"):
            adding.add(file, name=name)
    assert not home.exists()
    adding.add(file)
    with pytest.raises(SpecError) as caught:
        adding.add(file)
    assert one_line(caught.value, "name", "is taken", f"minicontainer kernel rm {linuxes.RELEASE}")
    assert [path.name for path in home.iterdir()] == [linuxes.RELEASE]


def test_a_release_with_a_plus_gets_a_name(tmp_path: Path) -> None:
    entry = adding.add(write(tmp_path / "x", linuxes.bzimage("6.12.117+deb13-cloud-amd64")))
    assert (entry.name, entry.kernel.release) == ("6.12.117-deb13-cloud-amd64", "6.12.117+deb13-cloud-amd64")


def test_the_default_goes_with_its_kernel(tmp_path: Path, home: Path) -> None:
    entry = adding.add(str(linuxes.tree(tmp_path / "x")), name="a", default=True)
    assert entry.is_default
    assert store.default() == entry
    store.remove("a")
    assert store.default() is None
    assert list(home.iterdir()) == []
    adding.add(str(tmp_path / f"x/boot/vmlinuz-{linuxes.RELEASE}"), name="a")
    assert store.default() is None
    for missing in ("b", "../a", ""):
        for refuse in (store.make_default, store.remove, store.find):
            with pytest.raises(store.NoKernelError):
                refuse(missing)


def test_nothing_is_left_of_a_failure(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="No space"):
        adding.add(str(linuxes.tree(tmp_path / "x")))
    assert list(home.iterdir()) == []


def test_what_killed_processes_have_left_is_removed_and_what_lives_is_not(tmp_path: Path, home: Path) -> None:
    file = str(linuxes.tree(tmp_path / "x"))
    adding.add(file, name="a")
    (home / ".left/kernel").mkdir(parents=True)
    (home / "._default.x").write_text("b")
    with store.part() as part:
        adding.add(file, name="b")
        assert os.path.isdir(part)
    assert sorted(path.name for path in home.iterdir()) == ["a", "b"]


def test_of_a_chosen_file_without_modules_the_image_is_searched(tmp_path: Path) -> None:
    """A kernel that has all built in need not be registered."""
    path = write(tmp_path / "vmlinux", linuxes.vmlinux("6.6.6", *linuxes.WHOLE))
    assert (kernels.find(path).announce, kernels.find(path).lacks) == ("command line", ())
    write(tmp_path / "vmlinux", linuxes.vmlinux("6.6.6", b"ACPI0007", *linuxes.WHOLE[1:]))
    assert (kernels.find(path).announce, kernels.find(path).lacks) == ("acpi", ("initramfs",))
    with pytest.raises(UnsupportedError, match="CONFIG_BLK_DEV_INITRD"):
        initramfs.open_base(kernels.find(path))


def test_a_lack_that_this_version_does_not_know_is_said_too(tmp_path: Path, home: Path) -> None:
    adding.add(str(linuxes.tree(tmp_path / "x")), name="a")
    (home / "a/kernel.json").write_text(json.dumps({**GOOD, "lacks": ["something"]}))
    with pytest.raises(UnsupportedError, match="has no something"):
        initramfs.open_base(store.find("a").kernel)


GOOD = {
    "format": 1, "size": 1, "kind": "linux", "release": "6.1", "mode": None, "announce": "acpi", "lacks": [],
    "created": 1.5, "source": "",
}  # fmt: skip
DAMAGES: list[tuple[object, str]] = [
    ({**GOOD, "format": 2}, "it is of format 2, not 1"),
    ({**GOOD, "kind": "x"}, "'x' is none of linux, libkrunfw"),
    ({**GOOD, "announce": 1}, "1 is none of"),
    ({**GOOD, "lacks": "x"}, "is no list"),
    ({**GOOD, "lacks": [1]}, "is no str"),
    ({**GOOD, "size": -1}, "is no number"),
    ({**GOOD, "mode": 1}, "is no str"),
    ({k: v for k, v in GOOD.items() if k != "release"}, "release"),
    ([], "is no object"),
]


@pytest.mark.parametrize(("data", "words"), DAMAGES)
def test_a_damaged_one_is_shown_and_can_be_removed(tmp_path: Path, home: Path, data: object, words: str) -> None:
    adding.add(str(linuxes.tree(tmp_path / "x")), name="a", default=True)
    (home / "a/kernel.json").write_text(json.dumps(GOOD))
    assert store.find("a").kernel.release == "6.1"
    (home / "a/kernel.json").write_text(json.dumps(data))
    (entry,) = store.registered()
    assert words in entry.damage
    for refuse in (lambda: store.find("a"), kernels.find):
        with pytest.raises(Error) as caught:
            refuse()
        assert one_line(caught.value, "kernel a", words, "minicontainer kernel rm a")
    store.remove("a")
    assert store.registered() == []


def test_files_that_are_missing_are_damage(tmp_path: Path, home: Path) -> None:
    for name in ("a", "b"):
        adding.add(str(linuxes.tree(tmp_path / name)), name=name)
    (home / "a/kernel").unlink()
    (home / "b/kernel.json").unlink()
    assert [entry.damage for entry in store.registered()] == ["has no kernel", "has no kernel.json"]
    with pytest.raises(UnsupportedError):
        kernels.find()  # neither is taken


@given(st.binary(max_size=200))
def test_any_configuration_is_read(raw: bytes) -> None:
    for name, value in build.options(raw.decode("latin-1")).items():
        assert name.startswith("CONFIG_")
        assert value == value.strip()

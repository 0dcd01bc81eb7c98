"""Kernels, initrds and memory that cannot be, without KVM: whatever is wrong is said on one line, with the value, and
before much is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kernels as k
import pytest
from kernels import AT, CODE, GIB, MIB, Load, Segment, one_line, sparse

from minicontainer.errors import Error, SpecError
from minicontainer.kvm import boot
from minicontainer.kvm.boot.kernel import Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory, GuestMemoryError, host_memory

BZIMAGE_OF_ANY_PVH = k.bzimage(k.gzip(k.pvh()))
PVH_SEGMENT = Segment(CODE, AT)
ELF32, ELF64 = k.simple(32), k.simple(64)
CUT = [
    (kind, image[:length])
    for kind, image in (("elf32", k.pvh(32)), ("elf64", k.pvh(64)), ("bzimage", BZIMAGE_OF_ANY_PVH))
    for length in (range(0x206, len(image) - 15, 13) if kind == "bzimage" else range(4, len(image)))
]


def test_a_file_that_is_cut_off_anywhere_is_refused(load: Load) -> None:
    for kind, content in CUT:
        with pytest.raises(KernelError) as caught:
            load(content)
        assert one_line(caught.value, "cut off" if kind == "bzimage" else " "), (kind, len(content))
        assert caught.value.exit_code == 126


PARTITIONED = bytearray(2048)
PARTITIONED[446:462] = struct.pack("<BBHBBHII", 0x80, 0, 0, 0x83, 0, 0, 1, 2)
PARTITIONED[510:512] = b"\x55\xaa"
DEFECTS = [
    ("empty", b"", ["is empty"]),
    ("elf class", k.changed(ELF64, 4, "B", 7), ["class 7"]),
    ("big endian", k.changed(ELF64, 5, "B", 2), ["big-endian"]),
    ("aarch64", k.changed(ELF64, k.MACHINE, "<H", 183), ["built for aarch64"]),
    ("i386 in 64 bits", k.changed(ELF64, k.MACHINE, "<H", 3), ["built for i386"]),
    ("unknown machine", k.changed(ELF32, k.MACHINE, "<H", 999), ["machine 999"]),
    ("relocatable", k.changed(ELF64, k.TYPE, "<H", 1), ["ELF type 1", "-no-pie"]),
    ("pie", k.changed(ELF64, k.TYPE, "<H", 3), ["ELF type 3", "-no-pie"]),
    ("program", k.elf(64, [Segment(b"ld.so", 0, type=3), PVH_SEGMENT], AT), ["a program for Linux"]),
    ("no segments", k.elf(64, [], AT), ["nothing to load"]),
    ("only empty ones", k.elf(64, [Segment(b"", AT)], AT), ["nothing to load"]),
    ("header size", k.changed(ELF64, k.ENTSIZE[64], "<H", 32), ["32 bytes each, not 56"]),
    ("header size 0", k.changed(ELF32, k.ENTSIZE[32], "<H", 0), ["0 bytes each, not 32"]),
    ("table beyond", k.changed(ELF64, k.TABLE[64], "<Q", 2**40), ["program header table", "0x10000000000"]),
    ("table wraps", k.changed(ELF64, k.TABLE[64], "<Q", 2**64 - 8), ["program header table", "0xfffffffffffffff8"]),
    ("table too long", k.changed(ELF64, k.COUNT[64], "<H", 1000), ["program header table", "beyond its"]),
    ("too many headers", k.changed(ELF64, k.COUNT[64], "<H", 0xFFFF), ["65535 entries"]),
    ("filesz above memsz", k.changed(ELF64, 64 + k.MEMSZ[64], "<Q", 3), [f"{len(CODE)} bytes in the file for 3"]),
    ("filesz beyond", k.elf(64, [Segment(CODE, AT, offset=0x100)], AT), ["0x100 to 0x113", "beyond its"]),
    ("offset wraps", k.elf(64, [Segment(CODE, AT, offset=2**64 - 4)], AT), ["0xfffffffffffffffc"]),
    ("paddr beyond", k.elf(64, [Segment(CODE, 2**40)], AT), ["0x10000000000 does not fit", "0x0 to 0x2000000"]),
    ("paddr wraps", k.elf(64, [Segment(CODE, 2**64 - 4)], AT), ["0xfffffffffffffffc does not fit"]),
    ("paddr wraps in 32 bits", k.elf(32, [Segment(CODE, 2**32 - 4)], AT), ["0xfffffffc does not fit"]),
    ("memsz", k.elf(64, [Segment(CODE, AT, 2**64 - 1)], AT), ["18446744073709551615 bytes at 0x200000"]),
    ("just too long", k.elf(64, [Segment(CODE, AT, 30 * MIB + 1)], AT), ["31457281 bytes", "(--memory 34m)"]),
    ("overlap", k.elf(64, [Segment(b"b", AT + 5), Segment(CODE, AT)], AT), ["0x200000", "0x200005 overlap"]),
    ("entry outside", k.changed(ELF64, k.ENTRY, "<Q", 2**63), ["entry 0x8000000000000000 is outside memory"]),
    ("entry in the hole", k.changed(ELF32, k.ENTRY, "<I", 0xD0000000), ["entry 0xd0000000 is outside memory"]),
    ("many notes", k.elf(64, [PVH_SEGMENT, *[k.note("a", 1, bytes(MIB // 2))] * 3], AT), ["1572912 bytes of notes"]),
    ("notes beyond", k.elf(64, [PVH_SEGMENT, k.pvh_note(AT)._replace(offset=9999)], AT), ["a note segment", "0x270f"]),
    ("processors", k.elf(64, [PVH_SEGMENT, k.own_note(1, 2**32 - 1)], AT), ["wants 4294967295 processors"]),
    ("pvh entry", k.elf(64, [PVH_SEGMENT, k.pvh_note(2**32 - 1)], AT), ["entry 0xffffffff is outside memory"]),
    ("pvh over tables", k.elf(64, [Segment(bytes(9), 0x6100), k.pvh_note(0x6100)], 0), ["0x6100", "tables are"]),
    ("pvh over acpi", k.elf(64, [Segment(bytes(9), 0xE0000), k.pvh_note(0xE0000)], 0), ["0xe0000", "tables are"]),
    ("setup header", k.bzimage()[:0x240], ["setup header is cut off at 576 bytes"]),
    ("old protocol", k.changed(k.bzimage(), 0x206, "<H", 0x201), ["no command line in 32 bits", "protocol 2.01"]),
    ("zImage", k.changed(k.bzimage(), 0x211, "B", 0), ["zImage"]),
    ("short header", k.changed(k.bzimage(), 0x201, "B", 0x10), ["setup header ends at 0x212"]),
    ("long set-up", k.changed(k.bzimage(), 0x1F1, "B", 255), ["cut off at 3072 bytes"]),
    ("default set-up", k.changed(k.bzimage(), 0x1F1, "B", 0), ["cut off at 3072 bytes"]),
    ("syssize", k.changed(k.bzimage(), 0x1F4, "<I", 2**32 - 1), ["cut off at 3072 bytes", "at least 68719477729"]),
    ("cut paragraph", k.bzimage()[:-16], ["cut off at 3056 bytes: it says that it has at least 3057"]),
    ("init size", k.changed(k.bzimage(), 0x260, "<I", 2**32 - 1), ["needs 4100 MiB of memory and has 32"]),
    ("preferred", k.changed(k.bzimage(), 0x258, "<Q", 2**64 - 1), ["of memory and has 32"]),
    ("payload beyond", k.changed(k.bzimage(), 0x24C, "<I", 2**31), ["its payload", "beyond its 3072 bytes"]),
    ("payload offset", k.changed(BZIMAGE_OF_ANY_PVH, 0x248, "<I", 2**32 - 1), ["its payload", "0x1000003ff"]),
    ("gzip", gzip.compress(CODE), ["is packed by gzip (gunzip)"]),
    ("gzip of an initrd", gzip.compress(b"070701" + CODE), ["is packed by gzip (gunzip)"]),
    ("cut gzip", gzip.compress(k.bzimage())[:-9], ["is packed by gzip, and"]),
    ("damaged gzip", k.changed(gzip.compress(k.simple()), 40, "B", 7), ["is packed by gzip, and"]),
    ("huge gzip", gzip.compress(CODE)[:-4] + b"\xff" * 4, ["is packed by gzip, and says", "4294967295 bytes"]),
    ("xz", lzma.compress(ELF64), ["is packed by xz (unxz)"]),
    ("bzip2", bz2.compress(CODE), ["is packed by bzip2 (bunzip2)"]),
    ("lz4", k.lz4(CODE), ["is packed by lz4 (unlz4)"]),
    ("lz4 frame", b"\x04\x22\x4d\x18" + CODE, ["is packed by lz4 (unlz4)"]),
    ("zstd", b"\x28\xb5\x2f\xfd" + CODE, ["is packed by zstd (unzstd)"]),
    ("zip", b"PK\3\4" + CODE, ["is a zip archive"]),
    ("efi", b"MZ".ljust(0x202, b"\0") + CODE, ["is a program for EFI"]),
    ("initrd", b"070701" + CODE, ["is a cpio archive (--initrd)"]),
    ("script", b"#!/bin/sh\n", ["is a script"]),
    ("qcow2", b"QFI\xfb" + CODE, ["is a disk image"]),
    ("u-boot", b"\x27\x05\x19\x56" + CODE, ["is packed for U-Boot"]),
    ("text", b"a word and more\n", ["is plain text (--mode real runs it as it is)"]),
    ("utf-8", "Käse\n".encode() * 2000, ["is plain text"]),
    ("arm64", CODE.ljust(0x38, b"\0") + b"ARM\x64" + bytes(99), ["is a kernel for arm64"]),
    ("deb", b"!<arch>\ndebian-binary", ["is a package of Debian"]),
    ("rpm", b"\xed\xab\xee\xdb" + CODE, ["is a package of rpm"]),
    ("tar", CODE.ljust(257, b"\0") + b"ustar", ["is a tar archive"]),
    ("iso", bytes(0x8001) + b"CD001", ["is an image of a CD"]),
    ("gpt", bytes(512) + b"EFI PART" + CODE, ["is a disk image"]),
    ("mbr", bytes(PARTITIONED), ["is a disk image", "--mode real"]),
    ("ext4", bytes(0x438) + b"\x53\xef" + CODE, ["is a file system (ext4)"]),
    ("core", k.changed(ELF64, k.TYPE, "<H", 4), ["is a core dump"]),
    ("multiboot flags", k.elf_with(k.multiboot(0x88)), ["asks its loader for", "flags 0x88"]),
    ("multiboot, no place", k.multiboot(3), ["multiboot header does not say where it goes"]),
    ("multiboot, cut", k.multiboot(1 << 16)[:20], ["multiboot header", "beyond its 20 bytes"]),
    ("multiboot before the file", k.multiboot(0, AT + 9, AT, 0, 0, AT), ["lies in the file at -0x9"]),
    ("multiboot beyond", k.multiboot(0, AT, AT, AT + 99, 0, AT), ["lies in the file at 0x0 to 0x63"]),
    ("multiboot backwards", k.multiboot(0, AT, AT, AT - 1, 0, AT), ["lies in the file at"]),
    (
        "multiboot bss",
        k.multiboot(0, AT, AT, 0, 2**32 - 1, AT),
        ["do not fit into memory", "link it for lower addresses"],
    ),
    ("multiboot entry", k.multiboot(0, AT, AT, 0, 0, 2**31), ["its entry 0x80000000 is outside memory"]),
    ("multiboot low", k.multiboot(0, 0x6000, 0x6000, 0, 0, 0x6000), ["0x6000 lies where the machine's tables are"]),
    ("multiboot2 for mips", k.multiboot2(architecture=4), ["another processor (architecture 4)"]),
    ("multiboot2 screen", k.elf_with(k.multiboot2((5, 0, bytes(12)))), ["asks for a frame buffer"]),
    ("multiboot2 unknown", k.elf_with(k.multiboot2((77, 0, bytes(3)))), ["does not know (tag 77 of 3 bytes)"]),
    ("multiboot2 wish", k.elf_with(k.multiboot2((1, 0, struct.pack("<II", 6, 11)))), ["not given here (type 11)"]),
    ("multiboot2 endless", k.elf_with(k.multiboot2(end=False)), ["multiboot2 header has 16 bytes"]),
    ("multiboot2 no end", k.elf_with(k.multiboot2((6, 1, b""), end=False)), ["multiboot2 header has no end"]),
    ("multiboot2 tag", k.changed(k.multiboot2((6, 1, b"")), 20, "<I", 99), ["a tag of 99 bytes at 0x10"]),
    ("multiboot2 small tag", k.changed(k.multiboot2((6, 1, b"")), 20, "<I", 7), ["a tag of 7 bytes"]),
    ("multiboot2 no entry", k.multiboot2((2, 0, bytes(16))), ["has addresses, and no entry"]),
    ("multiboot2, no place", k.multiboot2(), ["multiboot2 header does not say where it goes"]),
    ("flat", bytes(33 * MIB), ["its 34603008 bytes at 0x1000 do not fit"]),
]


@pytest.mark.parametrize(("content", "words"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_a_file_that_cannot_be_booted(load: Load, tmp_path: Path, content: bytes, words: list[str]) -> None:
    with pytest.raises(KernelError) as caught:
        load(content)
    assert one_line(caught.value, f"kernel {tmp_path / 'kernel'}: ", *words)
    assert caught.value.exit_code == 126


@pytest.mark.parametrize("bits", [32, 64])
def test_where_memory_goes_on_above_the_hole_32_bits_do_not_reach(load: Load, bits: int) -> None:
    wide = k.note("Xen", 18, struct.pack("<Q", 4 * GIB + 16))
    with pytest.raises(KernelError, match=r"its entry 0x100000010 is beyond the 4 GiB of protected mode"):
        load(k.elf(bits, [PVH_SEGMENT, wide], AT), "5G")
    for content, options in ((ELF32, {}), (CODE, {"mode": "protected"})):
        with pytest.raises(SpecError, match=r"^entry 0x100000010: is beyond the 4 GiB"):
            load(content, "5G", entry=4 * GIB + 16, **options)
        with pytest.raises(SpecError, match=r"^entry 0xd0000000: is outside memory"):
            load(content, "5G", entry=0xD0000000, **options)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (CODE, {"initrd": "x"}, ["initrd x", "flat"]),
        (CODE, {"append": "x y"}, ["append 'x y'", "flat"]),
        (k.boot_sector(), {"append": ""}, ["append ''", "boot-sector"]),
        (ELF64, {"initrd": "x"}, ["initrd x", "elf64"]),
        (k.pvh(), {"mode": "long", "append": "x"}, ["append x", "elf64"]),
        (ELF64, {"load_address": 4096}, ["load-address 0x1000", "elf64"]),
        (k.bzimage(), {"load_address": 4096}, ["load-address 0x1000", "bzimage"]),
        (k.bzimage(), {"entry": 4096}, ["entry 0x1000", "bzimage"]),
        (k.pvh(), {"entry": 4096}, ["entry 0x1000", "pvh"]),
        (k.elf_with(k.multiboot()), {"entry": 4096}, ["entry 0x1000", "multiboot"]),
        (k.elf_with(k.multiboot()), {"mode": "multiboot2"}, ["mode multiboot2", "multiboot or protected"]),
        (k.elf_with(k.multiboot()), {"append": "x" * 0x8000}, ["append", "this kernel takes 32767"]),
        (k.elf_with(k.multiboot()), {"initrd": "/dev"}, ["initrd /dev: is a directory"]),
        (k.elf_with(k.multiboot2()), {"initrd": "/nowhere/a b,c"}, ["initrd /nowhere/a: No such file"]),
        (k.elf_with(k.multiboot()), {"initrd": f"{__file__},"}, ["initrd", "has a module without a name"]),
        (k.elf_with(k.multiboot()), {"initrd": ""}, ["initrd '': has a module without a name (two commas are one"]),
        (k.elf_with(k.multiboot2()), {"initrd": " x"}, ["initrd ' x': has a module without a name"]),
        (ELF32, {"mode": "linux64"}, ["mode linux64", "elf32", "protected"]),
        (CODE, {"mode": "linux64"}, ["mode linux64", "does not say where it goes (--load-address, and --entry)"]),
        (CODE, {"mode": "linux64", "load_address": AT, "entry": 2**40}, ["entry 0x10000000000: is outside memory"]),
        (k.bzimage(), {"mode": "linux32", "append": "x" * 256}, ["this kernel takes 255"]),
        (ELF64, {"entry": 2**50}, ["entry 0x4000000000000: is outside memory"]),
        (CODE, {"entry": 2**51}, ["entry 0x8000000000000: is outside memory"]),
        (
            CODE,
            {"mode": "unreal"},
            ["mode unreal", ", ".join(boot.MODES)],
        ),
        (CODE, {"mode": "linux"}, ["mode linux", "flat"]),
        (k.boot_sector(), {"mode": "pvh"}, ["mode pvh"]),
        (ELF64, {"mode": "protected"}, ["mode protected", "elf64", "long or user64"]),
        (ELF32, {"mode": "long"}, ["mode long", "elf32"]),
        (ELF64, {"mode": "pvh"}, ["mode pvh", "elf64"]),
        (k.bzimage(), {"mode": "long"}, ["mode long", "bzimage", "linux or pvh or linux32 or linux16"]),
        (k.bzimage(), {"append": "x" * 256}, ["append", "has 256 bytes; this kernel takes 255"]),
        (k.pvh(), {"append": "é" * 1024}, ["append", "has 2048 bytes; this kernel takes 2047"]),
        (k.pvh(), {"append": "a\0b"}, ["append", "NUL"]),
        (k.pvh(), {"append": "\ud800"}, ["append", "half a character"]),
        (k.pvh(), {"initrd": "/nowhere/initrd"}, ["initrd /nowhere/initrd: No such file"]),
        (k.pvh(), {"initrd": "/dev"}, ["initrd /dev: is a directory"]),
        (k.bzimage(), {"initrd": "/dev/zero"}, ["initrd /dev/zero: is no regular file"]),
        (k.bzimage(), {"initrd": os.devnull}, ["initrd /dev/null: is no regular file"]),
    ],
)
def test_an_option_that_the_file_does_not_take(
    load: Load, content: bytes, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        load(content, **options)
    assert one_line(caught.value, *words)
    assert caught.value.exit_code == 125


def test_a_load_address_beyond_memory_or_in_the_hole(load: Load) -> None:
    for address in (2**51, 32 * MIB - 1, 3 * GIB, -1):
        with pytest.raises(KernelError, match="do not fit into memory"):
            load(CODE, load_address=address)


@pytest.mark.parametrize(("size", "says"), [(16 * MIB, "do not fit between"), (0, "is empty")])
@pytest.mark.parametrize("content", [k.pvh(), k.bzimage()], ids=["pvh", "bzimage"])
def test_an_initrd_that_would_lie_over_the_kernel(
    load: Load, tmp_path: Path, content: bytes, size: int, says: str
) -> None:
    path = sparse(tmp_path / "initrd", size)
    with pytest.raises(SpecError, match=f"^initrd .*{says}"):
        load(content, "16M", initrd=str(path))


def test_the_remedy_for_an_initrd_helps(load: Load, tmp_path: Path) -> None:
    """The memory that is named is enough; where none is, that is said."""
    path = sparse(tmp_path / "initrd", 20 * MIB)
    with pytest.raises(SpecError) as caught:
        load(k.pvh(), "16M", initrd=str(path))
    (enough,) = re.findall(r"\(--memory (\d+m)\)$", str(caught.value))
    load(k.pvh(), enough, initrd=str(path))
    sparse(tmp_path / "initrd", 5 * GIB // 2)
    with pytest.raises(SpecError, match=r"\(a smaller or packed one: at most \d+ MiB, whatever the memory\)$"):
        load(k.pvh(), "4G", initrd=str(path))


def test_multiboot_needs_2_mib(load: Load) -> None:
    low = k.elf(32, [Segment(bytes(4) + k.multiboot(3), 0x30000)], 0x30000)
    with pytest.raises(KernelError, match="needs 2 MiB of memory and has 0"):
        load(low, MIB // 2)
    assert load(low, 2 * MIB)[0].kind == "multiboot"


def test_linux_needs_16_mib(load: Load) -> None:
    for content in (k.pvh(), k.bzimage()):
        with pytest.raises(KernelError, match="needs 16 MiB of memory and has 15"):
            load(content, 16 * MIB - 4096)


@pytest.mark.parametrize("mode", [mode for mode in boot.MODES if mode != "real"])
def test_what_is_packed_is_entered_in_no_mode(load: Load, mode: str) -> None:
    with pytest.raises(KernelError, match="is packed by gzip"):
        load(gzip.compress(CODE), mode=mode, load_address=0x1000)


@pytest.mark.parametrize(("word", "guest"), [("helo", "hello"), ("Hello", "hello"), ("bootsecter", "bootsector")])
def test_a_word_that_nearly_is_a_guest(word: str, guest: str) -> None:
    with pytest.raises(KernelError) as caught:
        Kernel(word)
    assert caught.value.exit_code == 127
    hint = f"did you mean the guest {guest}? kvm-boot --list"
    assert str(caught.value) == f"kernel {word}: No such file or directory ({hint})"


def test_what_resembles_no_guest_gets_no_hint() -> None:
    for word in ("bzImage", "vmlinuz-6.1.0", "/boot/helo", "./hello"):
        with pytest.raises(KernelError, match=r"No such file or directory$"):
            Kernel(word)


# ---- files that are no such thing, and those that change


def test_a_path_at_which_no_file_can_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "file").write_bytes(CODE)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
    for name, code in (("fifo", 126), ("loop", 126), ("socket", 126), ("x" * 300, 126), ("", 126)):
        with pytest.raises(KernelError) as caught:
            Kernel(f"{tmp_path}/{name}")
        assert (caught.value.exit_code, one_line(caught.value)) == (code, True), name
    for name in ("none", "file/none", "a\0b", "\ud800", "new\nline"):
        with pytest.raises(KernelError) as caught:
            Kernel(f"{tmp_path}/{name}")
        assert (caught.value.exit_code, one_line(caught.value)) == (127, True), name


@pytest.mark.parametrize("image", [bytes(3 * MIB), k.elf(64, [Segment(bytes(3 * MIB), AT)], AT), k.bzimage(bytes(MIB))])
def test_a_file_that_shrinks_while_it_is_loaded(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(image)
    memory = GuestMemory("32M")
    with Kernel(str(path)) as kernel:
        os.truncate(path, 8192)
        with pytest.raises(KernelError, match="does it change"):
            boot.load(kernel, memory)
    memory.close()


def test_nothing_stays_open(tmp_path: Path, load: Load) -> None:
    before = os.listdir("/proc/self/fd")
    for _, content, _ in DEFECTS[:5]:
        with pytest.raises(Error):
            load(content)
    assert os.listdir("/proc/self/fd") == before


# ---- files that are larger than they look


@contextmanager
def allocating_less_than(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def big_elf(memsz: int) -> bytes:
    return k.changed(k.elf(64, [Segment(b"", AT, memsz, offset=0x1000)], AT), 64 + k.FILESZ[64], "<Q", memsz)


def big_payload(size: int, packed: bytes) -> bytes:
    image = k.changed(k.bzimage(), 0x24C, "<I", size - k.SETUP_SIZE - k.LOADED_SIZE)
    return image + packed


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "its 1073741824 bytes at 0x1000 do not fit"),
        (big_elf(GIB - 0x1000), "segment of 1073737728 bytes at 0x200000 does not fit"),
        (k.changed(k.bzimage(), 0x1F4, "<I", GIB // 32), "needs 1025 MiB of memory and has 32"),
        (big_payload(GIB, b"\x1f\x8b"), "needs 1025 MiB"),
        (big_payload(GIB, b"\x02\x21\x4c\x18"), "needs 1025 MiB"),
    ],
    ids=["flat", "elf", "bzimage", "gzip", "lz4"],
)
def test_a_sparse_file_is_judged_before_it_is_read(load: Load, tmp_path: Path, head: bytes, says: str) -> None:
    path = sparse(tmp_path / "sparse", GIB, head)
    with allocating_less_than(MIB), pytest.raises(KernelError, match=says):
        load(path)


def test_a_sparse_initrd_is_judged_before_it_is_read(load: Load, tmp_path: Path) -> None:
    path = sparse(tmp_path / "sparse", GIB)
    with allocating_less_than(MIB):
        for content in (k.pvh(), k.bzimage()):
            with pytest.raises(SpecError, match=r"^initrd .*its 1073741824 bytes do not fit between"):
                load(content, initrd=str(path))


@pytest.mark.parametrize("packer", k.PACKERS)
def test_a_payload_that_unpacks_to_more_than_it_says(load: Load, packer: str) -> None:
    """The size that it says bounds what is unpacked."""
    bomb = k.PACKERS[packer](bytes(8 * MIB if packer in ("lz4", "zstd") else 64 * MIB))
    payload = bomb[:-4] + struct.pack("<I", MIB)
    with allocating_less_than(20 * MIB), pytest.raises(SpecError, match=r"mode pvh: .*damaged"):
        load(k.bzimage(payload), mode="pvh")  # lzma takes 8 MiB for its dictionary


def test_a_payload_that_wants_a_dictionary_of_a_gigabyte(load: Load) -> None:
    payload = k.changed(k.PACKERS["lzma"](k.pvh()), 1, "<I", GIB)
    with allocating_less_than(20 * MIB), pytest.raises(SpecError, match=r"mode pvh: .*damaged"):
        load(k.bzimage(payload), mode="pvh")


# ---- guest memory


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (0, "memory 0: must be at least 4096"),
        ("0", "memory 0: must be at least 4096"),
        (-4096, "memory -4096: must be at least"),
        (5000, "memory 5000: is no multiple of 4096"),
        ("1.5b", "memory 1.5b: must be at least"),
        ("much", "memory much: is no size"),
        ("", "memory '': is no size"),
        (2**63, "below 2^63"),
        ((host_memory() // 4096 + 1) * 4096, f"more than this host has ({host_memory() >> 20} MiB)"),
        (True, "memory True: is no size"),
        (None, "memory"),
    ],
)
def test_memory_that_cannot_be(size: Any, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        GuestMemory(size)
    assert one_line(caught.value, says)


def test_memory_that_the_host_will_not_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicontainer.kvm.memory.host_memory", lambda: 2**63)
    with pytest.raises(SpecError, match=r"^memory \d+: cannot be mapped: Cannot allocate memory \(ulimit -v\)$"):
        GuestMemory(2**62)


@pytest.mark.parametrize("size", [4096, 32 * MIB - 4096, 32 * MIB, 33 * MIB + 4096, 5 * GIB])
def test_large_memory_is_of_huge_pages(size: int) -> None:
    memory = GuestMemory(size)
    try:
        large = size >= 32 * MIB
        assert len(memory) == size
        for region in memory.regions:
            host = memory.host + region.offset
            assert host % (2 * MIB) == region.address % (2 * MIB) or not large
            last = region.address + region.size - 8
            memory[last : last + 8] = b"the last"
            assert memory.read(last, 8) == b"the last"
        maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
        advised = [m for m in maps.split("VmFlags:")[1:] if " hg" in m.split("\n")[0]]
        assert bool(advised) == (large and os.path.exists("/sys/kernel/mm/transparent_hugepage"))
    finally:
        memory.close()


def test_memory_is_touched_only_where_it_is() -> None:
    memory = GuestMemory(3 * GIB + 8192)
    try:
        assert memory.end == 4 * GIB + 8192
        memory[4 * GIB : 4 * GIB + 4] = b"high"
        assert memory[4 * GIB : 4 * GIB + 4] == b"high"
        assert memory.read(4 * GIB + 8192, 0) == b""
        for address, length in (
            (3 * GIB - 2, 4),
            (3 * GIB, 1),
            (4 * GIB - 1, 2),
            (4 * GIB + 8191, 2),
            (-1, 1),
            (8, -4),
        ):
            for act in (memory.read, memory.view, memory.offset):
                with pytest.raises(GuestMemoryError, match="are not all memory"):
                    act(address, length)
        with pytest.raises(GuestMemoryError):
            memory.write(2**64 - 2, b"wrap")
        with pytest.raises(ValueError, match="3 bytes for 2 at 0x10"):
            memory[16:18] = b"abc"
        with pytest.raises(ValueError, match=r"memory\[start:stop\]"):
            memory[:4]
    finally:
        memory.close()

"""Kernels that are right, without KVM: each kind goes where it belongs, and is entered as its format says."""

from __future__ import annotations

import gzip
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import kernels as k
import pytest
from kernels import AT, CODE, GIB, MIB, Load, Segment, one_line, sparse

from minicontainer.errors import SpecError
from minicontainer.kvm import acpi, boot, processor
from minicontainer.kvm.boot import bios, elf, pc, zstd
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory

# ---- ELF


@pytest.mark.parametrize(("bits", "mode"), [(32, "protected"), (64, "long")])
def test_an_elf_file_is_entered_in_its_mode_at_its_addresses(load: Load, bits: int, mode: str) -> None:
    entry, memory = load(k.simple(bits))
    assert entry == Entry(f"elf{bits}", mode, AT + 1, {}, [(AT, len(CODE) + 0x1000)])
    assert memory[AT - 1 : AT + len(CODE) + 1] == b"\0" + CODE + b"\0"


@pytest.mark.parametrize("bits", [32, 64])
def test_an_entry_may_be_a_virtual_address(load: Load, bits: int) -> None:
    high = 0xC0000000
    segments = [Segment(b"data", AT + 0x3000, vaddr=high + 0x3000), Segment(CODE, AT, vaddr=high)]
    entry, memory = load(k.elf(bits, segments, high + 5))
    assert entry.rip == AT + 5
    assert memory[AT + 0x3000 : AT + 0x3004] == b"data"


def test_a_kernel_may_name_a_loader_that_cannot_exist(load: Load) -> None:
    """As Solo5's do, so that Linux does not run them."""
    loader = Segment(b"/nonexistent/solo5/\0", 0, type=k.PT_INTERP)
    assert load(k.elf(64, [Segment(CODE, AT), loader], AT))[0].rip == AT


@pytest.mark.parametrize("bits", [32, 64])
def test_a_segment_of_zeros_may_say_any_place_in_the_file(load: Load, bits: int) -> None:
    zeros = Segment(b"", AT + 0x10000, 0x1000, offset=0x7FFFF000)
    entry, _ = load(k.elf(bits, [Segment(CODE, AT), zeros], AT))
    assert entry.used == [(AT, len(CODE)), (AT + 0x10000, 0x1000)]


@pytest.mark.parametrize(
    ("flags", "cpus", "expected"),
    [
        (0, 0, ("long", False, 1)),
        (elf.WANTS_IRQCHIP, 4, ("long", True, 4)),
        (elf.WANTS_USER64, 1, ("user64", False, 1)),
        (3, 254, ("user64", True, 254)),
    ],
)
def test_a_note_says_what_a_guest_wants(load: Load, flags: int, cpus: int, expected: tuple[str, bool, int]) -> None:
    entry, _ = load(k.elf(64, [Segment(CODE, AT), k.note("other", 1, b"12345678"), k.own_note(flags, cpus)], AT))
    assert (entry.mode, entry.irqchip, entry.cpus) == expected


def test_the_caller_overrules_mode_and_entry(load: Load) -> None:
    assert load(k.simple(), mode="user64")[0].mode == "user64"
    assert load(k.pvh(), mode="long")[0].rip == AT + 1
    assert load(k.simple(), entry=0x1234)[0].rip == 0x1234


def test_memory_may_be_just_enough(load: Load) -> None:
    at = 2 * MIB - len(CODE)
    assert load(k.elf(64, [Segment(CODE, at)], at), "2M")[1][at : 2 * MIB] == CODE
    at = 4 * GIB + MIB - len(CODE)  # above the hole
    assert load(k.elf(64, [Segment(CODE, at)], at), 3 * GIB + MIB)[1][at : 4 * GIB + MIB] == CODE


# ---- PVH


@pytest.mark.parametrize("bits", [32, 64])
def test_pvh_start_info_has_command_line_initrd_and_memory(load: Load, initrd: Path, bits: int) -> None:
    entry, memory = load(k.pvh(bits), "32M", initrd=str(initrd), append="quiet é")
    assert entry[:4] == ("pvh", "protected", AT + 2, {"rbx": pc.INFO})
    assert (entry.irqchip, entry.linux, entry.cpus) == (True, True, 1)
    info = struct.unpack("<IIIIQQQQII", memory.read(pc.INFO, 56))
    magic, version, flags, modules, list_at, line, rsdp, map_at, ranges, reserved = info
    assert (magic, version, flags, modules, rsdp, reserved) == (0x336EC578, 1, 0, 1, acpi.ADDRESS, 0)
    assert memory.read(line, 10) == "quiet é\0".encode() + b"\0"
    address, size, its_line, zero = struct.unpack("<4Q", memory.read(list_at, 32))
    assert memory.read(address, size) == initrd.read_bytes()
    assert (address + size > 32 * MIB - 4096, address % 4096, its_line, zero) == (True, 0, 0, 0)
    assert (address, size) in entry.used
    assert list(struct.iter_unpack("<QQII", memory.read(map_at, 24 * ranges))) == [
        (0, 0x9FC00, 1, 0),
        (0x9FC00, 0x60400, 2, 0),
        (MIB, 31 * MIB, 1, 0),
    ]


def test_without_an_initrd_there_is_no_module(load: Load) -> None:
    _, memory = load(k.pvh())
    assert struct.unpack("<IIIIQ", memory.read(pc.INFO, 24))[3] == 0
    assert memory.read(pc.COMMAND_LINE, 14) == b"console=ttyS0\0"


@pytest.mark.parametrize("content", [k.pvh(), k.bzimage()], ids=["pvh", "bzimage"])
@pytest.mark.parametrize("size", [16 * MIB, 3 * GIB, 3 * GIB + 4096, 5 * GIB])
def test_the_memory_map_is_the_memory(load: Load, content: bytes, size: int) -> None:
    entry, memory = load(content, size)
    if entry.kind == "pvh":
        at, count = struct.unpack("<QI", memory.read(pc.INFO + 40, 12))
        found = [r[:3] for r in struct.iter_unpack("<QQII", memory.read(at, 24 * count))]
    else:
        raw = memory.read(pc.INFO, 4096)
        found = list(struct.iter_unpack("<QQI", raw[0x2D0 : 0x2D0 + 20 * raw[0x1E8]]))
    usable = [(start, start + size) for start, size, kind in found if kind == 1]
    low = min(size, 3 * GIB)
    assert usable == [(0, 0x9FC00), (MIB, low)] + ([(4 * GIB, GIB + size)] if size > low else [])


# ---- bzImages


@pytest.mark.parametrize("packer", k.PACKERS)
@pytest.mark.parametrize("mode", [None, "pvh"])
def test_a_bzimage_is_unpacked_and_entered_through_pvh(load: Load, packer: str, mode: str | None) -> None:
    entry, memory = load(k.bzimage(k.PACKERS[packer](k.pvh())), mode=mode)
    assert (entry.kind, entry.mode, entry.rip) == ("pvh", "protected", AT + 2)
    assert memory[AT : AT + len(CODE) + 1] == CODE + b"\0"


def test_a_payload_of_several_lz4_blocks(load: Load) -> None:
    content = os.urandom(1000) + bytes(8 * MIB) + CODE
    kernel = k.elf(64, [Segment(content, AT), k.pvh_note(AT)], AT)
    _, memory = load(k.bzimage(k.PACKERS["lz4"](kernel)))
    assert memory[AT : AT + len(content)] == content


@pytest.mark.parametrize("short", range(16))
def test_the_last_paragraph_need_not_be_full(load: Load, short: int) -> None:
    """syssize counts 16 bytes, rounded up: so it is in memtest86+."""
    image = k.bzimage()[: -short or None]
    entry, memory = load(image)
    assert (entry.kind, entry.rip) == ("bzimage", MIB + 0x200)
    assert memory[MIB : MIB + len(image) - 1024] == image[1024:]
    assert memory[MIB + len(image) - 1024 : MIB + len(k.bzimage()) - 1024] == bytes(short)


def test_linux_gets_its_zero_page(load: Load, initrd: Path) -> None:
    image = k.bzimage()
    entry, memory = load(image, initrd=str(initrd), append="a b")
    assert entry[:4] == ("bzimage", "long", MIB + 0x200, {"rsi": pc.INFO})
    assert (entry.irqchip, entry.linux) == (True, True)
    assert memory[MIB : MIB + len(image) - 1024] == image[1024:]
    page = memory.read(pc.INFO, 4096)
    end = 0x202 + image[0x201]
    filled_in = {*range(0x210, 0x211), *range(0x218, 0x220), *range(0x228, 0x22C)}  # loader, initrd, command line
    assert all(page[i] == image[i] for i in range(0x1F1, end) if i not in filled_in)
    assert page[0x210] == 0xFF
    address, size = struct.unpack_from("<II", page, 0x218)
    assert memory.read(address, size) == initrd.read_bytes()
    assert (address % 4096, address + size > k.INITRD_MAX - 4096, address + size <= k.INITRD_MAX + 1) == (0, True, True)
    assert memory.read(struct.unpack_from("<I", page, 0x228)[0], 4) == b"a b\0"
    assert struct.unpack_from("<Q", page, 0x70) == (acpi.ADDRESS,)
    assert not any(page[0x290:0x2D0])


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "does not say where its payload is"),
        (b"\x01\x02\x03\x04" + bytes(60), r"\(it begins with 01 02 03 04\) is unknown"),
        (b"\x28\xb5\x2f\xfd" + bytes(60), "is damaged"),
        (k.zstd(k.pvh()) + b"\1\0\0\0", "is damaged"),
        (k.gzip(k.simple()), "no PVH note"),
        (k.gzip(k.pvh(32)), "no ELF file"),
        (k.gzip(b"text"), "no ELF file"),
        (k.changed(k.gzip(k.pvh()), len(k.gzip(k.pvh())) - 8, "<I", 0), "damaged"),
        (k.gzip(k.pvh())[:-4] + struct.pack("<I", len(k.pvh()) - 1), "damaged"),
        (k.gzip(k.pvh())[:-4] + struct.pack("<I", 2**31), r"unpacks to 2048 MiB, and there are 32 MiB"),
        (k.gzip(k.elf(64, [Segment(CODE, AT), k.pvh_note(2**31)], AT)), "its entry 0x80000000 is outside memory"),
        (k.with_size(k.lz4(k.pvh())[:-1], k.pvh()), "damaged"),
        (k.with_size(k.lz4(b""), b""), "no ELF file"),
    ],
)
def test_a_payload_that_cannot_be_entered_is_left_to_the_kernel(load: Load, payload: bytes, why: str) -> None:
    image = k.bzimage(payload)
    assert load(image)[0].kind == "bzimage"
    with pytest.raises(SpecError, match=f"^mode pvh: .*({why})") as caught:
        load(image, mode="pvh")
    assert one_line(caught.value, "(--mode linux)")


def test_zstd_needs_a_library(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "SONAME", "libnowhere.so.1")
    image = k.bzimage(k.PACKERS["zstd"](k.pvh()))
    assert load(image)[0].kind == "bzimage"
    with pytest.raises(SpecError, match=r"mode pvh: .*needs libzstd, which cannot be opened: .*\(install libzstd1\)"):
        load(image, mode="pvh")


def test_linux_moves_itself_and_nothing_is_put_in_its_way(load: Load, initrd: Path) -> None:
    """Not even where its header says that it needs less than it has."""
    small = k.changed(k.changed(k.bzimage(bytes(8 * MIB)), 0x260, "<I", 0), 0x258, "<Q", 0)
    entry, memory = load(small, "16M", initrd=str(initrd))
    address, _ = struct.unpack_from("<II", memory.read(pc.INFO, 4096), 0x218)
    assert address >= MIB + len(small) - 1024
    sparse(initrd, 8 * MIB)
    with pytest.raises(SpecError, match=r"^initrd .*do not fit between the kernel's end 0x900800 and 0x1000000"):
        load(small, "16M", initrd=str(initrd))
    assert_disjoint(entry.used)


def without_64_bits(version: int = 0x20B) -> bytes:
    return k.changed(k.changed(k.bzimage(), 0x236, "<H", 0), 0x206, "<H", version)


@pytest.mark.parametrize(
    ("content", "mode", "initrd_max"),
    [
        (without_64_bits(), None, k.INITRD_MAX),
        (without_64_bits(), "linux", k.INITRD_MAX),
        (without_64_bits(0x202), None, 0x37FFFFFF),
        (k.bzimage(k.PACKERS["gzip"](k.pvh())), "linux32", k.INITRD_MAX),
    ],
)
def test_linux_by_its_32_bit_entry(load: Load, initrd: Path, content: bytes, mode: str | None, initrd_max: int) -> None:
    entry, memory = load(content, mode=mode, append="a", initrd=str(initrd))
    assert (entry.kind, entry.mode, entry.rip) == ("bzimage", "protected", MIB)
    assert memory.read(MIB, 16) == b"\xcc" * 16
    page = memory.read(entry.registers["rsi"], 4096)
    assert page[0x202:0x206] == b"HdrS"
    address, size = struct.unpack_from("<II", page, 0x218)
    assert memory.read(address, size) == initrd.read_bytes()
    assert address + size <= min(initrd_max + 1, 32 * MIB)


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (k.simple(), {}, ("vmlinux", AT + 1)),
        (k.simple(), {"entry": AT + 2}, ("vmlinux", AT + 2)),
        (CODE, {"load_address": AT, "entry": AT + 2}, ("image", AT + 2)),
        (CODE, {"load_address": AT}, ("image", AT)),
    ],
)
def test_linux_that_is_not_packed(
    load: Load, initrd: Path, content: bytes, options: dict[str, Any], expected: tuple[str, int]
) -> None:
    entry, memory = load(content, mode="linux64", append="a b", initrd=str(initrd), **options)
    assert ((entry.kind, entry.rip), entry.mode, entry.linux) == (expected, "long", True)
    assert memory.read(AT, len(CODE)) == CODE
    page = memory.read(entry.registers["rsi"], 4096)
    assert (page[0x1FE:0x200], page[0x202:0x206], page[0x210]) == (b"\x55\xaa", b"HdrS", 0xFF)
    assert text_at(memory, struct.unpack_from("<I", page, 0x228)[0]) == "a b"
    address, size = struct.unpack_from("<II", page, 0x218)
    assert memory.read(address, size) == initrd.read_bytes()
    assert page[0x1E8] == len(pc.memory_map(memory))


# ---- multiboot


def text_at(memory: GuestMemory, address: int) -> str:
    return memory.read(address, 200).partition(b"\0")[0].decode()


@pytest.fixture
def modules(tmp_path: Path) -> str:
    """Two files as --initrd takes them, the first with an argument."""
    (tmp_path / "one").write_bytes(b"first")
    (tmp_path / "a,b").write_bytes(b"second" * 1000)
    return f"{tmp_path}/one x=1,{tmp_path}/a,,b"


ADDRESSED = k.multiboot(0, AT + 8, AT, 0, AT + 0x1000, AT + 40, head=bytes(8))


@pytest.mark.parametrize("content", [k.elf_with(k.multiboot(7)), k.elf_with(k.multiboot(3), 64), ADDRESSED])
def test_multiboot_gets_its_information(load: Load, modules: str, content: bytes) -> None:
    entry, memory = load(content, append="a b", initrd=modules)
    assert (entry.kind, entry.mode, entry.irqchip) == ("multiboot", "protected", True)
    assert memory.read(entry.rip, len(CODE)) == CODE
    assert entry.registers["rax"] == 0x2BADB002
    info = struct.unpack("<30I", memory.read(entry.registers["rbx"], 120))
    flags, lower, upper, _, command_line, count, at = info[:7]
    assert flags == 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert (lower, upper) == (639, 31 * 1024)
    assert text_at(memory, command_line) == "a b"
    assert text_at(memory, info[16]) == "minicontainer"
    found = {}
    for number in range(count):
        start, end, text, _ = struct.unpack("<4I", memory.read(at + 16 * number, 16))
        assert start % 4096 == 0
        found[text_at(memory, text)] = memory.read(start, end - start)
    assert list(found.values()) == [b"first", b"second" * 1000]
    assert [text.rpartition("/")[2] for text in found] == ["one x=1", "a,b"]
    raw = memory.read(info[12], info[11])
    ranges = [r[1:] for r in struct.iter_unpack("<IQQI", raw)]
    assert ranges == [tuple(r) for r in pc.memory_map(memory)]
    assert {size for size, *_ in struct.iter_unpack("<IQQI", raw)} == {20}


def test_a_kernel_at_its_addresses(load: Load) -> None:
    """The a.out kludge: what is loaded begins before the header, and ends where the header says."""
    entry, memory = load(ADDRESSED + b"not this", mode="multiboot")
    assert entry.used[0] == (AT, 0x1000)
    short = k.multiboot(0, AT, AT, AT + 34, 0, AT + 32)
    entry, memory = load(short)
    assert memory.read(AT, 36) == short[:34] + bytes(2)
    assert entry.rip == AT + 32


PLACE2 = (2, 0, struct.pack("<IIII", AT, AT, 0, AT + 0x2000)), (3, 0, struct.pack("<I", AT + 0x40))


@pytest.mark.parametrize(
    ("content", "rip"),
    [
        (k.elf_with(k.multiboot2((1, 0, struct.pack("<II", 1, 6)), (1, 1, struct.pack("<I", 99)), (5, 1, b""))), None),
        (k.elf_with(k.multiboot2((3, 0, struct.pack("<I", AT + 8)), (10, 0, bytes(16))), 64), AT + 8),
        (k.multiboot2(*PLACE2), AT + 0x40),
    ],
)
def test_multiboot2_gets_its_tags(load: Load, modules: str, content: bytes, rip: int | None) -> None:
    entry, memory = load(content, append="a b", initrd=modules)
    assert (entry.kind, entry.mode, entry.irqchip) == ("multiboot2", "protected", True)
    assert entry.registers["rax"] == 0x36D76289
    assert memory.read(entry.rip, len(CODE)) == CODE if rip is None else entry.rip == rip
    at = entry.registers["rbx"]
    total, reserved = struct.unpack("<II", memory.read(at, 8))
    raw, tags, here = memory.read(at, total), [], 8
    while here < total:
        kind, size = struct.unpack_from("<II", raw, here)
        tags.append((kind, raw[here + 8 : here + size]))
        here += -(-size // 8) * 8
    assert (at % 8, reserved, here, tags[-1]) == (0, 0, total, (0, b""))
    content_of = dict(tags)
    assert (content_of[1], content_of[2]) == (b"a b\0", b"minicontainer\0")
    assert struct.unpack("<II", content_of[4]) == (639, 31 * 1024)
    assert struct.unpack_from("<II", content_of[6]) == (24, 0)
    ranges = [r[:3] for r in struct.iter_unpack("<QQII", content_of[6][8:])]
    assert ranges == [tuple(r) for r in pc.memory_map(memory)]
    loaded = [struct.unpack_from("<II", content) for kind, content in tags if kind == 3]
    assert [memory.read(start, end - start) for start, end in loaded] == [b"first", b"second" * 1000]


# ---- the screen


def test_linux_is_told_of_the_screen(load: Load) -> None:
    """struct screen_info: mode, columns, video memory, lines, VGA, scan lines of a character."""
    shown = bytes.fromhex("0000 0000 0000 03 50 00 00 0300 0000 19 01 1000")
    for content, options in ((k.bzimage(), {}), (k.bzimage(), {"mode": "linux32"}), (k.simple(), {"mode": "linux64"})):
        for screen, found, line in ((True, shown, "console=tty0"), (False, bytes(18), "console=ttyS0")):
            entry, memory = load(content, screen=screen, **options)
            page = memory.read(entry.registers["rsi"], 4096)
            assert page[: len(shown)] == found
            assert text_at(memory, struct.unpack_from("<I", page, 0x228)[0]) == line
    entry, memory = load(k.bzimage(), screen=True, append="quiet")
    assert text_at(memory, pc.COMMAND_LINE) == "quiet"


def test_pvh_which_tells_of_no_screen_is_taken_only_where_it_is_asked_for(load: Load) -> None:
    image = k.bzimage(k.PACKERS["gzip"](k.pvh()))
    assert load(image)[0].kind == "pvh"
    assert load(image, screen=True)[0].kind == "bzimage"
    assert load(image, screen=True, mode="pvh")[0].kind == "pvh"


def test_multiboot_is_told_of_the_screen(load: Load) -> None:
    entry, memory = load(k.elf_with(k.multiboot(7)), screen=True)
    raw = memory.read(entry.registers["rbx"], 120)
    assert int.from_bytes(raw[:4], "little") & 1 << 12
    assert struct.unpack_from("<QIIIBB", raw, 88) == (0xB8000, 160, 80, 25, 16, 2)
    assert text_at(memory, int.from_bytes(raw[64:68], "little")) == "minicontainer"
    entry, memory = load(k.elf_with(k.multiboot(7)))
    assert not any(memory.read(entry.registers["rbx"] + 88, 32))


def test_multiboot2_is_told_of_the_screen(load: Load) -> None:
    asked = (1, 0, struct.pack("<I", 8)), (5, 0, struct.pack("<III", 1024, 768, 32))
    entry, memory = load(k.elf_with(k.multiboot2(*asked)), screen=True)
    raw = memory.read(entry.registers["rbx"], 1024)
    at = raw.index(struct.pack("<II", 8, 32))
    assert at % 8 == 0
    assert struct.unpack_from("<QIIIBBH", raw, at + 8) == (0xB8000, 160, 80, 25, 16, 2, 0)
    for one, says in zip(asked, ("information that is not given here .type 8", "a frame buffer"), strict=True):
        with pytest.raises(KernelError, match=says) as caught:
            load(k.elf_with(k.multiboot2(one)))
        assert one_line(caught.value, "(--screen has text)" if one[0] == 5 else "type 8")


def test_the_bios_data_area_agrees_with_the_screen(load: Load) -> None:
    for content in (k.elf_with(k.multiboot(3)), k.boot_sector()):
        _, memory = load(content, screen=True)
        assert memory[0x449] == b"\x03"
        assert struct.unpack("<HHH", memory[0x44A:0x450]) == (80, 4096, 0)
        assert struct.unpack("<HBH", memory[0x460:0x465]) == (0x0D0E, 0, 0x3D4)
        assert struct.unpack("<BH", memory[0x484:0x487]) == (24, 16)
        assert memory[0x410] == b"\x20"
        _, memory = load(content)
        assert not any(memory[0x449:0x487])


def test_acpi_says_whether_there_is_a_vga() -> None:
    found = [int.from_bytes(acpi.fadt(0, vga=vga)[109:111], "little") & acpi.VGA_NOT_PRESENT for vga in (False, True)]
    assert found == [4, 0]


def test_of_several_formats_the_first_is_taken(load: Load) -> None:
    both = k.multiboot2()[: -len(CODE)] + k.multiboot(3)
    content = k.elf(32, [Segment(bytes(4) + both, AT, 0x1000), k.pvh_note(AT)], AT)
    for mode, kind in ((None, "pvh"), ("multiboot2", "multiboot2"), ("multiboot", "multiboot"), ("protected", "elf32")):
        assert load(content, mode=mode)[0].kind == kind
    assert load(content, mode="real")[0].kind == "flat"


@pytest.mark.parametrize("content", [k.simple(32), k.bzimage(), k.pvh(), k.elf_with(k.multiboot())])
def test_what_gzip_has_packed_is_unpacked(load: Load, content: bytes) -> None:
    plain, memory = load(content)
    entry, unpacked = load(gzip.compress(content))
    assert entry == plain
    assert [unpacked.read(*place) for place in entry.used] == [memory.read(*place) for place in plain.used]


# ---- flat binaries and boot sectors


@pytest.mark.parametrize(
    ("options", "mode", "at", "rip"),
    [
        ({}, "real", 0x1000, 0x1000),
        ({"mode": "real", "load_address": 0, "entry": 5}, "real", 0, 5),
        ({"load_address": 0x80000}, "", 0, "0x80000: is beyond the first 64 KiB"),
        ({"load_address": 0x80000, "entry": 0xFFFF}, "real", 0x80000, 0xFFFF),
        ({"mode": "protected"}, "protected", 0x100000, 0x100000),
        ({"mode": "long", "load_address": 0x3000}, "long", 0x3000, 0x3000),
        ({"mode": "user64", "entry": 0x100003}, "user64", 0x100000, 0x100003),
    ],
)
def test_a_flat_binary(load: Load, options: dict[str, Any], mode: str, at: int, rip: int | str) -> None:
    if isinstance(rip, str):
        with pytest.raises(SpecError, match=f"^entry {rip}"):
            load(CODE, "2M", **options)
        return
    entry, memory = load(CODE, "2M", **options)
    assert (entry.kind, entry.mode, entry.rip, entry.used) == ("flat", mode, rip, [(at, len(CODE))])
    assert memory[at : at + len(CODE)] == CODE


def test_a_flat_binary_may_fill_memory_to_its_end(load: Load) -> None:
    content = os.urandom(MIB - 0x1000)
    assert load(content, "1M")[1][0x1000:MIB] == content
    with pytest.raises(KernelError, match=f"its {MIB - 0xFFF} bytes at 0x1000 do not fit"):
        load(content + b"x", "1M")


def test_a_boot_sector_gets_a_bios(load: Load) -> None:
    entry, memory = load(k.boot_sector(), "1M")
    assert entry[:4] == ("boot-sector", "real", 0x7C00, {"rsp": 0x7C00, "rdx": 0x80})
    assert memory[0x7C00:0x7E00] == k.boot_sector()
    code = Path(bios.PATH).read_bytes()
    assert memory[0xF0000 : 0xF0000 + len(code)] == code
    vectors = list(struct.iter_unpack("<HH", memory[0:0x400]))
    video, other = struct.unpack_from("<HH", code)
    assert vectors == [(video if n == 0x10 else other, 0xF000) for n in range(256)]
    with pytest.raises(KernelError, match="needs 1 MiB of memory"):
        load(k.boot_sector(), 0xF0000)


def test_a_boot_sector_may_be_a_flat_binary(load: Load) -> None:
    for options in ({"load_address": 0x1000}, {"entry": 0x1000}, {"mode": "protected"}):
        assert load(k.boot_sector(), "2M", **options)[0].kind == "flat"
    assert load(k.boot_sector() + b"x", "2M", mode="real")[0].kind == "flat"


# ---- memory that is wanted, and tables beside what is there


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (CODE, 2 * MIB),
        (bytes(3 * MIB), 4 * MIB),
        (k.simple(), 3 * MIB),
        (k.elf(64, [Segment(CODE, 2**60)], 0), 256 * MIB),
        (k.pvh(), 256 * MIB),
        (k.bzimage(), 256 * MIB),
        (k.boot_sector(), 2 * MIB),
    ],
)
def test_default_memory(tmp_path: Path, content: bytes, size: int) -> None:
    (tmp_path / "kernel").write_bytes(content)
    with Kernel(str(tmp_path / "kernel")) as kernel:
        assert boot.memory_wanted(kernel) == size


def assert_disjoint(ranges: list[tuple[int, int]]) -> None:
    ordered = sorted(r for r in ranges if r[1])
    assert all(a + size <= b for (a, size), (b, _) in pairwise(ordered)), ordered


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (k.elf(64, [Segment(b"x" * 0x8000, 0)], 0), {}),
        (k.elf(32, [Segment(b"x" * 0x3000, 0x3000), Segment(b"y" * 0x1000, 0x9000)], 0x3000), {}),
        (CODE * 5000, {"mode": "user64", "load_address": 0x2800}),
        (k.bzimage(bytes(MIB)), {"initrd": "initrd"}),
        (k.pvh(), {"initrd": "initrd"}),
    ],
)
def test_processor_tables_are_written_beside_all_that_was_loaded(
    load: Load, initrd: Path, content: bytes, options: dict[str, Any]
) -> None:
    if "initrd" in options:
        options = {"initrd": str(initrd)}
    entry, memory = load(content, "16M", **options)
    assert_disjoint(entry.used)
    if entry.linux:
        acpi.write(memory, 254)
    before = [memory.read(*place) for place in entry.used]
    assert processor.write_tables(entry, memory) > 0
    assert [memory.read(*place) for place in entry.used] == before


@pytest.mark.parametrize("mode", [None, "linux16"])
def test_a_kernel_of_setup_code_alone_is_entered_in_real_mode(load: Load, tmp_path: Path, mode: str | None) -> None:
    """As iPXE, whose code32_start is 0 (boot.rst, "Loading The Rest of The Kernel", "Running the Kernel")."""
    content = k.bzimage() if mode else k.changed(k.bzimage(), 0x214, "<I", 0)
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"initrd")
    entry, memory = load(content, mode=mode, memory=32 * MIB, append="a b", initrd=str(initrd))
    assert (entry.kind, entry.mode, entry.rip) == ("bzimage", "real", 0)
    assert (entry.segment, entry.code_segment, entry.registers) == (0x9000, 0x20, {"rsp": 0xE000})
    assert (entry.irqchip, entry.linux) == (True, False)
    setup = memory[0x90000 : 0x90000 + k.SETUP_SIZE]
    assert setup[0x200:0x206] == content[0x200:0x206]
    assert (setup[0x210], setup[0x211]) == (0xFF, 0x81)
    assert struct.unpack_from("<H", setup, 0x224) == (0xDE00,)
    (line,) = struct.unpack_from("<I", setup, 0x228)
    assert memory[line : line + 4] == b"a b\0"
    at, size = struct.unpack_from("<II", setup, 0x218)
    assert memory[at : at + size] == b"initrd"
    assert memory[0x100000 : 0x100000 + k.LOADED_SIZE] == b"\xcc" * k.LOADED_SIZE
    assert memory[0x40:0x44][2:] == b"\x00\xf0"  # INT 10h is the BIOS's

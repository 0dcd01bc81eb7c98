"""What an error about a kernel says to do: it helps."""

from __future__ import annotations

import re
import struct

import kernels as k
import pytest
from kernels import AT, CODE, GIB, MIB, Load, Segment, one_line

from minicontainer.kvm import boot
from minicontainer.kvm.boot.kernel import Kernel, KernelError
from minicontainer.kvm.memory import host_memory

SECTOR = k.boot_sector()
FAR_JUMP = bytes.fromhex("ea 5b e0 00 f0") + b"06/23/99"  # SeaBIOS's
U_BOOT = bytes.fromhex("fa fc e9 0b f8 ff ff ff")
EDK2 = bytes.fromhex("0f 20 c0 a8 01 74 05 e9 28 ff ff ff")


def firmware(end: bytes, size: int = 64 << 10, head: bytes = b"") -> bytes:
    return head.ljust(size - 16, b"\xff") + end.ljust(16, b"\0")


def reason(load: Load, content: bytes, **options: object) -> str:
    with pytest.raises(KernelError) as caught:
        load(content, **options)
    assert one_line(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (k.elf(64, [Segment(CODE, AT, 30 * MIB + 1)], AT), {}),
        (k.elf(32, [Segment(CODE, 40 * MIB)], 40 * MIB), {}),
        (k.multiboot(0, AT, AT, 0, 64 * MIB, AT), {}),
        (bytes(40 * MIB), {}),
        (CODE, {"mode": "protected", "load_address": 33 * MIB}),
    ],
    ids=["elf64", "elf32", "multiboot", "flat", "load address"],
)
def test_the_memory_that_is_named_is_enough(load: Load, content: bytes, options: dict[str, object]) -> None:
    (enough,) = re.findall(r"\(--memory (\d+m)\)$", reason(load, content, **options))
    load(content, enough, **options)


@pytest.mark.skipif(host_memory() < 4 * GIB, reason="the host has too little memory")
def test_memory_above_the_hole_is_named_where_it_helps(load: Load) -> None:
    high = k.elf(64, [Segment(CODE, 4 * GIB + 16)], 4 * GIB + 16)
    (enough,) = re.findall(r"\(--memory (\d+m)\)$", reason(load, high))
    load(high, enough)


@pytest.mark.parametrize("address", [3 * GIB + MIB, 3 * GIB - 1, 4 * GIB - 4096, 2**64 - 2 * GIB])
def test_where_no_memory_helps_none_is_named(load: Load, address: int) -> None:
    """As of a kernel that is linked for the upper half of its addresses."""
    assert "link it for lower addresses" in reason(load, k.elf(64, [Segment(CODE, address)], address))


def test_of_other_files_too(load: Load) -> None:
    high = 0xFFF00000
    assert "link it for lower addresses" in reason(load, k.multiboot(0, high, high, 0, 0, high))
    assert reason(load, CODE, mode="protected", load_address=high).endswith("(--load-address)")
    rom = firmware(U_BOOT, head=k.multiboot(0, high, high, 0, 0, high))
    assert reason(load, rom).endswith("(--firmware)")


@pytest.mark.parametrize("end", [FAR_JUMP, U_BOOT, EDK2, b"\x90\x90\xe9\x5b\xff", b"\xeb\xee"])
def test_firmware_is_no_kernel(load: Load, end: bytes) -> None:
    for size in (64 << 10, 256 << 10):
        assert reason(load, firmware(end, size)).endswith(": is firmware (--firmware; --mode real runs it as it is)")
    assert load(firmware(end), "2M", mode="real")[0].kind == "flat"


@pytest.mark.parametrize("content", [firmware(FAR_JUMP)[16:], firmware(b"\xea\0\0\0\0"), firmware(b""), CODE])
def test_what_is_not_entered_at_its_end_is_no_firmware(load: Load, content: bytes) -> None:
    assert load(content)[0].kind == "flat"


@pytest.mark.parametrize("more", [b"\xf4", bytes(512), bytes(1440 * 1024 - 512)])
def test_a_boot_sector_with_more_behind_it(load: Load, more: bytes) -> None:
    """A boot sector reads the rest from a disk; entered at another address it would go astray."""
    says = "is a boot sector with more behind it, which it would read from a disk"
    assert f"{says} (its first 512 bytes; --mode real runs it as it is)" in reason(load, SECTOR + more)
    assert load(SECTOR)[0].kind == "boot-sector"
    assert load(SECTOR + more, mode="real", load_address=0x7C00)[0].rip == 0x7C00


def test_a_program_for_linux_is_linked_otherwise(load: Load) -> None:
    assert reason(load, k.elf(64, [Segment(b"ld.so", 0, type=3), Segment(CODE, AT)], AT)).endswith(
        "it wants a loader (link it with -static -no-pie)"
    )


@pytest.mark.parametrize("head", [b"MZ".ljust(64, b"\0"), bytes(64)], ids=["efi", "unknown"])
@pytest.mark.parametrize("header", [k.multiboot(3), k.multiboot2()], ids=["multiboot", "multiboot2"])
def test_a_multiboot_header_in_a_file_of_another_format(load: Load, head: bytes, header: bytes) -> None:
    """Xen's program for EFI has one. The format is told before the memory is chosen, as ``kvm-boot`` does it."""
    content = head + header + struct.pack("<I", 0)
    said = reason(load, content)
    assert ("is a program for EFI" if head[0] else "header does not say where it goes, and it is no ELF file") in said
    with pytest.raises(KernelError) as caught:
        boot.memory_wanted(Kernel(said.split(":")[0].removeprefix("kernel ")))
    assert str(caught.value) == said

"""Descriptors, page tables and CPUID as the processor's manuals have them (Intel SDM volume 3; AMD APM volume 2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from minicontainer.errors import SpecError
from minicontainer.kvm import cpuid, processor, x86
from minicontainer.kvm.memory import GuestMemory
from minicontainer.native import ffi

AT = 0x4000
PAGE = 4096
HTT, HYPERVISOR, TSC_DEADLINE, X2APIC, PDCM = 1 << 28, 1 << 31, 1 << 24, 1 << 21, 1 << 15


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    found = GuestMemory("2M")
    yield found
    found.close()


def entries(memory: GuestMemory, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", memory.read(at, 8 * count))


# ---- descriptors


@pytest.mark.parametrize(
    ("wide", "code", "user_code"),
    [(False, 0x00CF9B000000FFFF, 0x00CFFB000000FFFF), (True, 0x00AF9B000000FFFF, 0x00AFFB000000FFFF)],
)
def test_the_descriptor_table(memory: GuestMemory, wide: bool, code: int, user_code: int) -> None:
    """Code: execute, read, accessed, present; 32 bits (D), or 64 (L). Data: read, write, accessed. Limit 4 GiB."""
    x86.tables(memory, AT, wide=wide)
    table = entries(memory, AT, 8)
    data, user_data, tss = 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x0000890000000067
    assert table == (0, 0, code, data, tss, 0, user_data, user_code)


def test_selectors_are_where_linux_wants_them_and_name_their_level() -> None:
    assert (x86.CODE, x86.DATA) == (0x10, 0x18)  # __BOOT_CS, __BOOT_DS
    assert [s & 7 for s in (x86.CODE, x86.DATA, x86.TSS, x86.USER_DATA, x86.USER_CODE)] == [0, 0, 0, 3, 3]


def test_the_task_lets_cpl_3_use_every_port(memory: GuestMemory) -> None:
    """SDM volume 1, "I/O Permission Bit Map": a bit of zero per port, and a byte of ones behind the last."""
    x86.tables(memory, AT, wide=True, user=True)
    sregs = ffi.new("struct kvm_sregs *")
    x86.long(sregs, AT, user=True)
    task = memory.read(sregs.tr.base, sregs.tr.limit + 1)
    (base,) = struct.unpack_from("<H", task, 0x66)
    assert task[base : base + 8192] == bytes(8192)
    assert task[base + 8192 :] == b"\xff"
    assert sregs.tr.base + sregs.tr.limit < AT + x86.GDT_SIZE  # below the page tables


# ---- page tables


def walk(memory: GuestMemory, root: int, linear: int) -> tuple[int, int]:
    """(Physical address, bits that all levels have) by page tables with 2 MiB pages."""
    bits, table = 0x87, root
    for shift in (39, 30, 21):
        (entry,) = entries(memory, table + (linear >> shift & 511) * 8, 1)
        bits &= entry | (0x80 if shift > 21 else 0)
        table = entry & 0x000FFFFFFFFFF000
    return table | linear & 0x1FFFFF, bits


@pytest.mark.parametrize(("user", "bits"), [(False, 0x83), (True, 0x87)])
def test_all_below_4_gib_is_mapped_to_itself(memory: GuestMemory, user: bool, bits: int) -> None:
    x86.tables(memory, AT, wide=True, user=user)
    sregs = ffi.new("struct kvm_sregs *")
    x86.long(sregs, AT, user=user)
    for linear in (0, 0x1234, 0x1FFFFF, 0x200000, 0x40000000, 0xFEE00000, 0xFFFFFFFF):
        assert walk(memory, sregs.cr3, linear) == (linear, bits)
    assert entries(memory, sregs.cr3, 512)[1:] == (0,) * 511
    assert entries(memory, sregs.cr3 + PAGE, 512)[4:] == (0,) * 508


@pytest.mark.parametrize(("end", "gigabytes"), [(1 << 20, 4), (4 << 30, 4), ((4 << 30) + 1, 5), (512 << 30, 512)])
def test_memory_above_4_gib_is_mapped_too(end: int, gigabytes: int) -> None:
    memory: Any = SimpleNamespace(end=end, size=end)
    assert x86.tables_size(memory, True) == x86.GDT_SIZE + (2 + gigabytes) * PAGE
    assert x86.tables_size(memory, False) == x86.GDT_SIZE


def test_more_than_one_table_of_gigabytes_is_refused() -> None:
    memory: Any = SimpleNamespace(end=(512 << 30) + 1, size=511 << 30)
    with pytest.raises(SpecError, match=r"^memory 548682072064: .*512 GiB are mapped"):
        x86.tables_size(memory, True)


def test_tables_go_to_the_lowest_free_place(memory: GuestMemory) -> None:
    place = processor.free_address
    assert place([], memory, PAGE) == 0x2000
    assert place([(0x1000, 0x800)], memory, PAGE) == 0x2000
    assert place([(0x1000, 0x1001)], memory, PAGE) == 0x3000
    assert place([(0x5000, 1), (0x2000, 0x1800)], memory, PAGE) == 0x4000
    assert place([(0x5000, 1), (0x2000, 0x1800)], memory, PAGE + 1) == 0x6000
    assert place([(0x100000, 0x1000)], memory, 0x9000) == 0x2000
    assert place([], memory, (2 << 20) - 0x2000) == 0x2000
    with pytest.raises(SpecError, match=r"^memory 2097152: leaves no room for"):
        place([], memory, (2 << 20) - 0x1FFF)


# ---- registers


def test_real_mode() -> None:
    sregs = ffi.new("struct kvm_sregs *")
    x86.real(sregs, 0x1234)
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(sregs, name)
        assert (segment.base, segment.selector, segment.limit) == (0x12340, 0x1234, 0xFFFF)


def test_protected_mode() -> None:
    sregs = ffi.new("struct kvm_sregs *")
    x86.protected(sregs, AT)
    assert (sregs.cs.selector, sregs.cs.db, sregs.cs.l, sregs.cs.dpl, sregs.cs.type) == (0x10, 1, 0, 0, 11)
    assert (sregs.ss.selector, sregs.ss.type, sregs.ss.limit, sregs.ss.g) == (0x18, 3, 0xFFFFFFFF, 1)
    assert (sregs.tr.selector, sregs.tr.type, sregs.tr.s) == (0x20, 11, 0)  # a busy TSS, as VMX wants it
    assert (sregs.gdt.base, sregs.gdt.limit, sregs.cr0, sregs.efer, sregs.cr4) == (AT, 63, 0x11, 0, 0)


@pytest.mark.parametrize(("user", "selectors", "dpl"), [(False, (0x10, 0x18), 0), (True, (0x3B, 0x33), 3)])
@pytest.mark.parametrize("xsave", [False, True])
def test_long_mode(user: bool, selectors: tuple[int, int], dpl: int, xsave: bool) -> None:
    sregs = ffi.new("struct kvm_sregs *")
    x86.long(sregs, AT, user=user, xsave=xsave)
    assert (sregs.cs.selector, sregs.ss.selector) == selectors
    assert (sregs.cs.dpl, sregs.ss.dpl, sregs.cs.l, sregs.cs.db) == (dpl, dpl, 1, 0)
    assert sregs.efer == 1 << 8 | 1 << 10  # LME, LMA
    assert sregs.cr0 & 1 << 31
    assert sregs.cr0 & 1
    assert sregs.cr4 == (0x40620 if xsave else 0x620)  # PAE, SSE; OSXSAVE
    assert sregs.cr3 == AT + x86.GDT_SIZE


# ---- CPUID

Leaf = tuple[int, int, int, int, int, int]  # function, index, eax, ebx, ecx, edx
SOURCE: list[Leaf] = [
    (0x0, 0, 0x1F, 0, 0, 0),
    (0x1, 0, 0xB00F21, 0x77665544, PDCM | X2APIC | 1, 0x1),
    (0x4, 0, 0xFC01C121, 1, 2, 3),
    (0x4, 1, 0xFC01C122, 1, 2, 3),
    (0xB, 0, 9, 9, 9, 9),
    (0xB, 1, 9, 9, 9, 9),
    (0x1F, 0, 9, 9, 9, 9),
    (0x80000008, 0, 0x3030, 0, 0x5F0FF | 0xF00, 0),
    (0x8000001D, 0, 0x4143, 1, 2, 3),
    (0x8000001E, 0, 0, 0, 0, 0),
]


def table(leaves: list[Leaf]) -> Any:
    made = ffi.new("struct kvm_cpuid2 *", {"entries": len(leaves)})
    made.nent = len(leaves)
    for entry, (function, index, eax, ebx, ecx, edx) in zip(cpuid.entries(made), leaves, strict=True):
        entry.function, entry.index, entry.flags = function, index, 0
        entry.eax, entry.ebx, entry.ecx, entry.edx = eax, ebx, ecx, edx
    return made


def patched(number: int, count: int, *, irqchip: bool = True, leaves: list[Leaf] = SOURCE) -> dict[Any, Any]:
    made = cpuid._patched(table(leaves), number, count, irqchip=irqchip)
    found = {(e.function, e.index): (e.eax, e.ebx, e.ecx, e.edx) for e in cpuid.entries(made)}
    assert len(found) == made.nent
    return found


def test_one_processor() -> None:
    found = patched(0, 1)
    assert found[0, 0] == (0x1F, 0, 0, 0)
    assert found[1, 0] == (0xB00F21, 0x00015544, X2APIC | TSC_DEADLINE | HYPERVISOR | 1, 1)
    assert found[4, 0] == (0x121, 1, 2, 3)
    assert found[0xB, 0] == (0, 1, 0x100, 0)
    assert found[0xB, 1] == (0, 1, 0x201, 0)
    assert (0x1F, 0) not in found


@pytest.mark.parametrize(("number", "count", "bits"), [(1, 2, 1), (2, 3, 2), (3, 4, 2), (4, 5, 3), (253, 254, 8)])
def test_every_processor_has_its_own_place(number: int, count: int, bits: int) -> None:
    found = patched(number, count)
    _, ebx, _, edx = found[1, 0]
    assert (ebx >> 24, ebx >> 16 & 0xFF, ebx & 0xFFFF, edx) == (number, count, 0x5544, HTT | 1)
    assert [found[0xB, i] for i in (0, 1)] == [(0, 1, 0x100, number), (bits, count, 0x201, number)]
    assert found[0x80000008, 0][2] == 0x50F00 | bits << 12 | count - 1
    assert found[0x8000001E, 0] == (number, number, 0, 0)


def test_caches_are_one_cores_and_cores_are_counted_to_64() -> None:
    for count, cores in ((1, 0), (2, 1), (64, 63), (65, 63), (254, 63)):
        found = patched(0, count)
        assert [found[4, i][0] >> 26 for i in (0, 1)] == [cores, cores]
        assert [found[4, i][0] >> 14 & 0xFFF for i in (0, 1)] == [0, 0]
        assert found[0x8000001D, 0] == (0x143, 1, 2, 3)


def test_without_an_irqchip_there_is_no_local_apic_to_speak_of() -> None:
    assert patched(0, 1, irqchip=False)[1, 0][2] == HYPERVISOR | 1


def test_topology_is_reported_only_where_the_host_has_it() -> None:
    found = patched(1, 2, leaves=[leaf for leaf in SOURCE if leaf[0] not in (0xB, 0x1F)])
    assert not [key for key in found if key[0] == 0xB]
    assert found[1, 0][1] >> 24 == 1


def test_the_hosts_table_is_not_changed() -> None:
    source = table(SOURCE)
    before = bytes(ffi.buffer(source))
    cpuid._patched(source, 3, 4, irqchip=True)
    assert bytes(ffi.buffer(source)) == before

"""The BIOS data area and the MP table, read as a kernel reads them."""

from __future__ import annotations

import struct

import pytest

from minicontainer.errors import SpecError
from minicontainer.kvm import biosdata
from minicontainer.kvm.boot.kernel import CPUS_MAX, Entry
from minicontainer.kvm.memory import GuestMemory

SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}  # bytes of an entry, by type


def entry(at: int, size: int) -> Entry:
    return Entry("flat", "real", at, {}, [(at, size)])


def word(memory: GuestMemory, at: int) -> int:
    return int.from_bytes(memory.read(at, 2), "little")


def entries(memory: GuestMemory) -> list[bytes]:
    """The table's entries, found by way of the data area, the EBDA and the pointer."""
    ebda = word(memory, 0x40E) << 4
    area = memory.read(ebda, 1024)
    at = next(i for i in range(0, 1024, 16) if area[i : i + 4] == b"_MP_")
    pointer = area[at : at + 16]
    assert sum(pointer) % 256 == 0
    address, length, revision = struct.unpack_from("<4xIBB", pointer)
    assert (length, revision) == (1, 4)
    signature, size = struct.unpack("<4sH", memory.read(address, 6))
    table = memory.read(address, size)
    assert (signature, sum(table) % 256) == (b"PCMP", 0)
    assert struct.unpack_from("<I", table, 36) == (0xFEE00000,)
    found, at = [], 44
    while at < size:
        found.append(table[at : at + SIZES[table[at]]])
        at += len(found[-1])
    assert at == size
    assert struct.unpack_from("<H", table, 34) == (len(found),)
    return found


@pytest.mark.parametrize("cpus", [1, 2, CPUS_MAX])
def test_a_kernel_finds_processors_and_interrupts(cpus: int) -> None:
    memory = GuestMemory("2M")
    biosdata.write(entry(0x1000, 100), memory, cpus, irqchip=True)
    found = entries(memory)
    assert [e[0] for e in found] == sorted(e[0] for e in found)
    processors = [e for e in found if e[0] == 0]
    assert [(e[1], e[3]) for e in processors] == [(n, 3 if n == 0 else 1) for n in range(cpus)]
    (ioapic,) = (e for e in found if e[0] == 2)
    assert ioapic[1] not in {e[1] for e in processors}
    assert struct.unpack_from("<I", ioapic, 4) == (0xFEC00000,)
    assert [(e[5], e[7]) for e in found if e[0] == 3] == [(irq, irq) for irq in range(16) if irq != 2]
    assert [(e[1], e[7]) for e in found if e[0] == 4] == [(3, 0), (1, 1)]  # ExtINT at LINT0, NMI at LINT1
    memory.close()


def test_without_apics_there_is_the_data_area_alone() -> None:
    memory = GuestMemory("2M")
    made = biosdata.write(entry(0x1000, 100), memory, 1, irqchip=False)
    assert (word(memory, 0x400), word(memory, 0x40E) << 4, word(memory, 0x413)) == (0x3F8, 0x9FC00, 639)
    assert b"_MP_" not in memory.read(0x9FC00, 0x60400)
    assert made.used == [(0x1000, 100), (0x400, 0x100), (0x9FC00, 0x60400)]
    memory.close()


@pytest.mark.parametrize(("at", "size"), [(0x4FF, 1), (0x1000, 0x9EC01), (0, 0x401)])
def test_it_does_not_lie_over_the_kernel(at: int, size: int) -> None:
    memory = GuestMemory("2M")
    with pytest.raises(SpecError, match="where the kernel is too"):
        biosdata.write(entry(at, size), memory, 1, irqchip=True)
    memory.close()


def test_it_needs_a_megabyte() -> None:
    memory = GuestMemory("64K")
    with pytest.raises(SpecError, match=r"needs 1 MiB of memory \(--memory 1m\)"):
        biosdata.write(entry(0x1000, 100), memory, 1, irqchip=True)
    memory.close()

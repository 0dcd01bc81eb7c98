"""The MP table (Intel MultiProcessor Specification 1.4): the processors, the IOAPIC and its interrupts, for kernels
that read no ACPI tables. A pointer to it is at the begin of the EBDA, where such kernels look first.
"""

from __future__ import annotations

import struct

from minicontainer.kvm.acpi import IOAPIC_ADDRESS, LAPIC_ADDRESS, checksum
from minicontainer.kvm.boot.pc import LOW_END

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.memory import GuestMemory

POINTER = LOW_END + 16  # the first byte of the EBDA is its size
ADDRESS = 0xEC000  # of the table: in the BIOS area, behind the ACPI tables
REVISION = 4  # 1.4
PROCESSOR, BUS, IOAPIC, INTERRUPT, LOCAL_INTERRUPT = range(5)  # entries (4.3), in the order that the table has them
LAPIC_VERSION, IOAPIC_VERSION = 0x14, 0x11  # KVM's
ENABLED, BOOTSTRAP = 1, 2
SIGNATURE, FEATURES = 0x600, 0x201  # of CPUID leaf 1: family 6; FPU and APIC
INT, NMI, EXTINT = 0, 1, 3  # interrupt types (table 4-10)
EVERY_APIC = 0xFF


def write(memory: GuestMemory, cpus: int) -> tuple[int, int]:
    """Writes the table for ``cpus`` processors and its pointer; returns the table's address and size."""
    content = table(cpus)
    memory.write(ADDRESS, content)
    memory.write(POINTER, pointer(ADDRESS))
    return ADDRESS, len(content)


def pointer(address: int) -> bytes:
    """The MP floating pointer structure (4.1): PICs are wired to the processors, there is no IMCR."""
    return _sealed(struct.pack("<4sIBBB5x", b"_MP_", address, 1, REVISION, 0), 10)


def table(cpus: int) -> bytes:
    """The MP configuration table (4.2)."""
    entries = list(_entries(cpus))
    size = 44 + sum(map(len, entries))
    header = struct.pack(
        "<4sHBB8s12sIHHIHBx", b"PCMP", size, REVISION, 0, b"MINICT  ", b"MINICONT    ", 0, 0, len(entries),
        LAPIC_ADDRESS, 0, 0,
    )  # fmt: skip
    return _sealed(header + b"".join(entries), 7)


def _entries(cpus: int) -> list[bytes]:
    ioapic = cpus  # its id is behind those of the processors, as in the MADT
    found = [
        struct.pack(
            "<BBBBII8x", PROCESSOR, number, LAPIC_VERSION, ENABLED | BOOTSTRAP * (number == 0), SIGNATURE, FEATURES
        )
        for number in range(cpus)
    ]
    found.append(struct.pack("<BB6s", BUS, 0, b"ISA   "))
    found.append(struct.pack("<BBBBI", IOAPIC, ioapic, IOAPIC_VERSION, ENABLED, IOAPIC_ADDRESS))
    # KVM wires each ISA interrupt to the pin of its number; 2 is the second PIC's.
    found += [struct.pack("<BBHBBBB", INTERRUPT, INT, 0, 0, irq, ioapic, irq) for irq in range(16) if irq != 2]
    for kind, pin in ((EXTINT, 0), (NMI, 1)):
        found.append(struct.pack("<BBHBBBB", LOCAL_INTERRUPT, kind, 0, 0, 0, EVERY_APIC, pin))
    return found


def _sealed(data: bytes, at: int) -> bytes:
    """With the byte ``at`` such that the sum of all is 0."""
    return data[:at] + bytes([checksum(data)]) + data[at + 1 :]

"""ACPI tables, as a guest finds them: from the root pointer on, each with its sum and its place."""

from __future__ import annotations

import struct

from minicontainer.kvm import acpi
from minicontainer.kvm.memory import GuestMemory


def test_acpi_tables_sum_to_zero_and_lead_to_each_other() -> None:
    memory = GuestMemory("2M")
    rsdp = memory.read(acpi.write(memory, 3), 36)
    assert (sum(rsdp[:20]) & 0xFF, sum(rsdp) & 0xFF, rsdp[:8]) == (0, 0, b"RSD PTR ")

    def table(address: int) -> bytes:
        raw = memory.read(address, int.from_bytes(memory.read(address + 4, 4), "little"))
        assert sum(raw) & 0xFF == 0
        return raw

    xsdt = table(int.from_bytes(rsdp[24:32], "little"))
    tables = {t[:4]: t for t in (table(a) for (a,) in struct.iter_unpack("<Q", xsdt[36:]))}
    assert set(tables) == {b"FACP", b"APIC"}
    assert len(tables[b"FACP"]) == 276
    assert table(int.from_bytes(tables[b"FACP"][140:148], "little"))[:4] == b"DSDT"
    assert tables[b"APIC"][44:].count(b"\x00\x08") >= 3
    memory.close()

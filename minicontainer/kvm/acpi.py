"""Hardware-reduced ACPI (ACPI 6.5, 4.1): tables for processors, the serial port, the sleep and reset registers.

RSDP -> XSDT -> FADT -> DSDT, and MADT. The tables are contiguous, from ADDRESS on, in a PC's BIOS area.
"""

from __future__ import annotations

import struct

from minicontainer.kvm.ports import RESET_CONTROL, SLEEP_CONTROL, SLEEP_STATUS
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.kvm.memory import GuestMemory

ADDRESS = 0xE0000  # of the RSDP; tables follow
OEM = b"MINICT"
IOAPIC_ADDRESS, LAPIC_ADDRESS = 0xFEC00000, 0xFEE00000
RESET_VALUE = 0x06
VIRTIO_SIZE = 0x1000  # of a device's registers
SYSTEM_IO = 1  # ACPI 6.5, 5.2.3.2: address space of a Generic Address Structure

# FADT flags (5.2.9, table 5.10) and IA-PC boot architecture flags (5.2.9.3)
PWR_BUTTON, SLP_BUTTON, RESET_REG_SUP, HW_REDUCED_ACPI = 1 << 4, 1 << 5, 1 << 10, 1 << 20
VGA_NOT_PRESENT, CMOS_RTC_NOT_PRESENT = 1 << 2, 1 << 5
MADT_ENABLED, MADT_PCAT_COMPAT = 1, 1


def write(memory: GuestMemory, cpus: int, *, vga: bool = False, virtio: Sequence[tuple[int, int]] = ()) -> int:
    """Writes the tables for ``cpus`` processors to memory; returns the RSDP's address. ``vga``: there is one;
    ``virtio``: (address, interrupt) of each device on virtio-mmio."""
    at = ADDRESS + 64
    addresses = []
    devices = dsdt(virtio)
    dsdt_address, at = at, at + len(devices)
    placed = [(dsdt_address, devices)]
    for table in (fadt(dsdt_address, vga=vga), madt(cpus)):
        at = -(-at // 16) * 16
        addresses.append(at)
        placed.append((at, table))
        at += len(table)
    xsdt_address = -(-at // 16) * 16
    placed.append((xsdt_address, table_of(b"XSDT", 1, struct.pack(f"<{len(addresses)}Q", *addresses))))
    for address, content in [(ADDRESS, rsdp(xsdt_address)), *placed]:
        memory.write(address, content)
    return ADDRESS


# ---- tables


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all bytes zero (modulo 256)."""
    return -sum(data) & 0xFF


def table_of(signature: bytes, revision: int, content: bytes) -> bytes:
    """A table with its header (5.2.6)."""
    header = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(content), revision, 0, OEM, b"MINICONT", 1, b"MINI", 1)
    table = bytearray(header + content)
    table[9] = checksum(table)
    return bytes(table)


def rsdp(xsdt: int) -> bytes:
    """The Root System Description Pointer (5.2.5.3), revision 2."""
    first = struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 2, 0)
    first = first[:8] + bytes([checksum(first)]) + first[9:]
    whole = first + struct.pack("<IQB3x", 36, xsdt, 0)
    return whole[:32] + bytes([checksum(whole)]) + whole[33:]


def _register(port: int) -> bytes:
    """A Generic Address Structure of an 8-bit port."""
    return struct.pack("<BBBBQ", SYSTEM_IO, 8, 0, 1, port)


def fadt(dsdt_address: int, *, vga: bool = False) -> bytes:
    """The Fixed ACPI Description Table (5.2.9), revision 6.5. Its only registers are those for sleep and reset."""
    body = bytearray(276 - 36)

    def put(offset: int, data: bytes) -> None:
        body[offset - 36 : offset - 36 + len(data)] = data

    flags = PWR_BUTTON | SLP_BUTTON | RESET_REG_SUP | HW_REDUCED_ACPI
    put(109, struct.pack("<H", CMOS_RTC_NOT_PRESENT | (0 if vga else VGA_NOT_PRESENT)))
    put(112, struct.pack("<I", flags))
    put(116, _register(RESET_CONTROL) + bytes([RESET_VALUE]))
    put(131, b"\x05")  # minor version
    put(140, struct.pack("<Q", dsdt_address))
    put(244, _register(SLEEP_CONTROL) + _register(SLEEP_STATUS))
    return table_of(b"FACP", 6, bytes(body))


def madt(cpus: int) -> bytes:
    """The Multiple APIC Description Table (5.2.12): local APICs 0 to cpus-1, and the IOAPIC."""
    body = struct.pack("<II", LAPIC_ADDRESS, MADT_PCAT_COMPAT)
    for number in range(cpus):
        body += struct.pack("<BBBBI", 0, 8, number, number, MADT_ENABLED)
    body += struct.pack("<BBBBII", 1, 12, cpus, 0, IOAPIC_ADDRESS, 0)
    return table_of(b"APIC", 5, body)


def dsdt(virtio: Sequence[tuple[int, int]] = ()) -> bytes:
    """The Differentiated System Description Table: the serial port, virtio devices, and the sleep type of S5 ("soft
    off")."""
    com1 = aml_device(
        b"COM1",
        aml_name(b"_HID", aml_dword(eisa_id("PNP0501"))),
        aml_name(b"_UID", aml_byte(0)),
        aml_name(b"_STA", aml_byte(0x0F)),
        aml_name(b"_CRS", aml_buffer(io_ports(lib.MC_SERIAL_PORT, 8) + interrupt(lib.MC_SERIAL_IRQ) + END_TAG)),
    )
    s5 = aml_name(b"_S5_", aml_package(aml_byte(5), aml_byte(0), aml_byte(0), aml_byte(0)))
    others = [_virtio(number, *where) for number, where in enumerate(virtio)]
    return table_of(b"DSDT", 2, aml_scope(b"\\_SB_", com1, *others) + s5)


def _virtio(number: int, address: int, line: int) -> bytes:
    """A device on virtio-mmio. Debian's kernels find it by this name alone (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is
    off; Linux drivers/virtio/virtio_mmio.c, virtio_mmio_acpi_match)."""
    return aml_device(
        b"VR%02X" % number,
        aml_name(b"_HID", aml_string("LNRO0005")),
        aml_name(b"_UID", aml_byte(number)),
        aml_name(b"_CCA", aml_byte(1)),
        aml_name(b"_CRS", aml_buffer(memory_range(address, VIRTIO_SIZE) + interrupt(line) + END_TAG)),
    )


# ---- AML (ACPI 6.5, chapter 20): the parts that dsdt() uses


def aml_length(content: bytes) -> bytes:
    """PkgLength (20.2.4) of ``content``; it counts its own bytes too."""
    size = len(content) + 1
    if size < 64:
        return bytes([size])
    size += 1
    if size < 1 << 12:
        return bytes([0x40 | size & 0xF, size >> 4])
    size += 1
    return bytes([0x80 | size & 0xF, size >> 4 & 0xFF, size >> 12])


def aml_byte(value: int) -> bytes:
    """ByteConst."""
    return bytes([0x0A, value])


def aml_dword(value: int) -> bytes:
    """DWordConst."""
    return b"\x0c" + struct.pack("<I", value)


def aml_string(text: str) -> bytes:
    """String."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def aml_name(name: bytes, value: bytes) -> bytes:
    """DefName."""
    return b"\x08" + name + value


def aml_buffer(data: bytes) -> bytes:
    """DefBuffer."""
    content = aml_byte(len(data)) + data
    return b"\x11" + aml_length(content) + content


def aml_package(*elements: bytes) -> bytes:
    """DefPackage."""
    content = bytes([len(elements)]) + b"".join(elements)
    return b"\x12" + aml_length(content) + content


def aml_scope(name: bytes, *terms: bytes) -> bytes:
    """DefScope."""
    content = name + b"".join(terms)
    return b"\x10" + aml_length(content) + content


def aml_device(name: bytes, *terms: bytes) -> bytes:
    """DefDevice."""
    content = name + b"".join(terms)
    return b"\x5b\x82" + aml_length(content) + content


def eisa_id(name: str) -> int:
    """``PNP0501`` as the number in a _HID (19.3.4, EISAID)."""
    letters = [ord(c) - 0x40 for c in name[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(name[3:], 16)
    return int.from_bytes(value.to_bytes(4, "big"), "little")


# ---- resources (6.4)

END_TAG = b"\x79\x00"


def io_ports(first: int, count: int) -> bytes:
    """I/O port descriptor (6.4.2.5): 16 bits are decoded."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def memory_range(address: int, size: int) -> bytes:
    """32-bit fixed memory range descriptor (6.4.3.4): writable."""
    return struct.pack("<BHBII", 0x86, 9, 1, address, size)


def interrupt(number: int) -> bytes:
    """Extended interrupt descriptor (6.4.3.6): consumer, edge, active high, exclusive."""
    return struct.pack("<BHBBI", 0x89, 6, 0x3, 1, number)

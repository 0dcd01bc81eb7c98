"""Access to memory by a processor's linear addresses, through its page tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minicontainer.kvm.descriptor import PAGE
from minicontainer.kvm.memory import GuestMemory, GuestMemoryError
from minicontainer.kvm.vcpu import Vcpu
from minicontainer.kvm.x86 import CR0_PE, CR0_PG, EFER_LMA

TOP = 1 << 64


def code_bits(sregs: Any) -> int:
    """The width of the code that the processor executes: 16, 32 or 64 (Intel SDM volume 3, "Code-Segment
    Descriptor")."""
    if sregs.efer & EFER_LMA and sregs.cs.l:
        return 64
    return 32 if sregs.cr0 & CR0_PE and sregs.cs.db else 16


def code_base(sregs: Any) -> int:
    """The base address of the code segment, 0 in 64-bit code."""
    return 0 if code_bits(sregs) == 64 else int(sregs.cs.base)


def read(vcpu: Vcpu, memory: GuestMemory, address: int, length: int) -> bytes:
    """Bytes at a linear address, up to the first byte that is not mapped. GuestMemoryError: no byte is mapped.

    The processor must be stopped, as for every ioctl on it."""
    data = bytearray()
    try:
        for physical, size in _pieces(vcpu, address, length):
            data += memory.read(physical, size)
    except GuestMemoryError:
        if not data:
            raise
    return bytes(data)


def write(vcpu: Vcpu, memory: GuestMemory, address: int, data: bytes) -> None:
    """Writes at a linear address, also to read-only pages. GuestMemoryError: a byte is not mapped; none is written."""
    pieces = list(_pieces(vcpu, address, len(data)))
    for physical, size in pieces:
        memory.offset(physical, size)
    at = 0
    for physical, size in pieces:
        memory.write(physical, data[at : at + size])
        at += size


def _pieces(vcpu: Vcpu, address: int, length: int) -> Iterator[tuple[int, int]]:
    """(physical address, size) of each page."""
    paging = bool(vcpu.get_sregs().cr0 & CR0_PG) if length else False
    end = address + length
    while address < end:
        size = min(PAGE - address % PAGE, end - address)
        physical = vcpu.translate(address) if paging and address < TOP else address
        if physical is None:
            raise GuestMemoryError(f"guest memory {address:#x}: the guest's page tables have nothing there")
        yield physical, size
        address += size

"""A processor's own view of memory: linear addresses, which its page tables lead to physical ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minicontainer.kvm.memory import GuestMemory, GuestMemoryError
from minicontainer.kvm.vcpu import Vcpu
from minicontainer.kvm.x86 import CR0_PE, CR0_PG, EFER_LMA, PAGE

TOP = 1 << 64


def code_bits(sregs: Any) -> int:
    """16, 32 or 64: how wide the code is that the processor executes (Intel SDM volume 3, "Code-segment
    descriptor")."""
    if sregs.efer & EFER_LMA and sregs.cs.l:
        return 64
    return 32 if sregs.cr0 & CR0_PE and sregs.cs.db else 16


def code_base(sregs: Any) -> int:
    """What the code segment adds to rip: nothing in 64-bit code."""
    return 0 if code_bits(sregs) == 64 else int(sregs.cs.base)


def read(vcpu: Vcpu, memory: GuestMemory, address: int, length: int) -> bytes:
    """Bytes at a linear address: as many as are there before the first that is not; GuestMemoryError where none is.

    The processor must not be running, as for every call on it."""
    found = bytearray()
    try:
        for physical, size in _pieces(vcpu, address, length):
            found += memory.read(physical, size)
    except GuestMemoryError:
        if not found:
            raise
    return bytes(found)


def write(vcpu: Vcpu, memory: GuestMemory, address: int, data: bytes) -> None:
    """Sets bytes at a linear address, whether the guest might or not; none of them where not all are memory."""
    pieces = list(_pieces(vcpu, address, len(data)))
    for physical, size in pieces:
        memory.offset(physical, size)
    at = 0
    for physical, size in pieces:
        memory.write(physical, data[at : at + size])
        at += size


def _pieces(vcpu: Vcpu, address: int, length: int) -> Iterator[tuple[int, int]]:
    """(Physical address, size), page by page."""
    paging = bool(vcpu.get_sregs().cr0 & CR0_PG) if length else False
    end = address + length
    while address < end:
        size = min(PAGE - address % PAGE, end - address)
        physical = vcpu.translate(address) if paging and address < TOP else address
        if physical is None:
            raise GuestMemoryError(f"guest memory {address:#x}: the guest's page tables have nothing there")
        yield physical, size
        address += size

"""The processor state at the guest's entry: real, protected and long mode (Intel SDM volume 3; AMD APM volume 2).

``real``, ``protected`` and ``long`` change a ``struct kvm_sregs``; ``tables`` writes the tables to guest memory.
"""

from __future__ import annotations

import struct

from minicontainer.errors import SpecError
from minicontainer.kvm.descriptor import PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.kvm.memory import GuestMemory

CR0_PE, CR0_MP, CR0_ET, CR0_NE, CR0_PG = 1 << 0, 1 << 1, 1 << 4, 1 << 5, 1 << 31
CR4_PAE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE = 1 << 5, 1 << 9, 1 << 10, 1 << 18
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
RFLAGS_1, RFLAGS_IOPL3 = 1 << 1, 3 << 12
PTE_P, PTE_W, PTE_U, PTE_PS = 1, 2, 4, 1 << 7

# Selectors of the descriptor table; code and data as in Linux's 64-bit boot protocol (__BOOT_CS, __BOOT_DS).
CODE, DATA, TSS, USER_DATA, USER_CODE = 0x10, 0x18, 0x20, 0x33, 0x3B
TYPE_CODE, TYPE_DATA, TYPE_TSS = 11, 3, 11  # execute, read, accessed; read, write, accessed; 32-bit or 64-bit, busy
GDT_ENTRIES = 8

# ``tables`` writes the descriptor table; the TSS with the I/O permission bit map for CPL 3 (a clear bit permits the
# port; a byte of ones follows: Intel SDM volume 1, "I/O Permission Bit Map"); then page tables. KVM_PVM ignores IOPL,
# and checks the map alone.
TSS_OFFSET, TSS_SIZE, TSS_MAP, PORT_MAP_SIZE = 0x80, 0x68, 0x66, 0x2000
TSS_LIMIT = TSS_SIZE + PORT_MAP_SIZE
GDT_SIZE = 3 * PAGE
PDPT_ENTRIES = 512  # of one page; 1 GiB each


def tables_size(memory: GuestMemory, paging: bool) -> int:
    """Bytes that ``tables`` writes: pages of descriptors and, for long mode, the page tables that map all memory."""
    return GDT_SIZE + (2 + _gigabytes(memory)) * PAGE if paging else GDT_SIZE


def _gigabytes(memory: GuestMemory) -> int:
    """The number of GiB that are mapped: at least four, since devices are below 4 GiB."""
    count = max(4, -(-memory.end >> 30))
    if count > PDPT_ENTRIES:
        raise SpecError("memory", memory.size, f"is more than long mode begins with ({PDPT_ENTRIES} GiB are mapped)")
    return count


def tables(memory: GuestMemory, at: int, *, wide: bool, user: bool = False) -> None:
    """Writes the descriptor table at ``at``, and for long mode (``wide``) the page tables behind it: an identity map of
    all memory, and of all addresses below 4 GiB, in pages of 2 MiB; ``user``: accessible at CPL 3."""
    memory.write(at, _gdt(wide))
    if user:
        memory.write(at + TSS_OFFSET + TSS_MAP, struct.pack("<H", TSS_SIZE))
        memory.write(at + TSS_OFFSET + TSS_LIMIT, b"\xff")
    if not wide:
        return
    pml4, pdpt, first = at + GDT_SIZE, at + GDT_SIZE + PAGE, at + GDT_SIZE + 2 * PAGE
    bits = PTE_P | PTE_W | (PTE_U if user else 0)
    count = _gigabytes(memory)
    memory.write(pml4, struct.pack("<Q", pdpt | bits))
    memory.write(pdpt, struct.pack(f"<{count}Q", *(first + i * PAGE | bits for i in range(count))))
    memory.write(first, _large_pages(count, bits | PTE_PS))


_pages: dict[tuple[int, int], bytes] = {}


def _large_pages(count: int, bits: int) -> bytes:
    """Page directories for ``count`` GiB, cached."""
    directories = _pages.get((count, bits))
    if directories is None:
        directories = struct.pack(f"<{count * 512}Q", *(i << 21 | bits for i in range(count * 512)))
        _pages[count, bits] = directories
    return directories


def _descriptor(kind: int, dpl: int = 0, *, wide: bool = False, system: bool = False) -> int:
    """A segment descriptor with base 0, limit 4 GiB; of the TSS, limit 0x67."""
    access = 0x80 | dpl << 5 | (0 if system else 0x10) | kind
    if system:
        return access << 40 | 0x67
    size = 0x2 if wide and kind & 8 else 0x4  # L for 64-bit code, else D
    return 0xFFFF | access << 40 | 0xF << 48 | (0x8 | size) << 52


def _gdt(wide: bool) -> bytes:
    entries = [0] * GDT_ENTRIES
    entries[CODE >> 3] = _descriptor(TYPE_CODE, wide=wide)
    entries[DATA >> 3] = _descriptor(TYPE_DATA)
    entries[TSS >> 3] = _descriptor(9, system=True)  # available: ltr makes it busy
    entries[USER_DATA >> 3] = _descriptor(TYPE_DATA, 3)
    entries[USER_CODE >> 3] = _descriptor(TYPE_CODE, 3, wide=wide)
    return struct.pack(f"<{GDT_ENTRIES}Q", *entries)


# ---- struct kvm_sregs


def _segment(segment: Any, selector: int, kind: int, *, wide: bool = False) -> None:
    segment.base, segment.limit, segment.selector, segment.type = 0, 0xFFFFFFFF, selector, kind
    segment.present = segment.s = segment.g = 1
    segment.dpl, segment.l, segment.db, segment.unusable = selector & 3, int(wide), int(not wide), 0


def _task(segment: Any) -> None:
    segment.base, segment.limit, segment.selector, segment.type = 0, 0x67, TSS, TYPE_TSS
    segment.present, segment.s, segment.g, segment.db, segment.l, segment.unusable = 1, 0, 0, 0, 0, 0


def real(sregs: Any, segment: int = 0, code: int = 0) -> None:
    """16-bit real mode, every segment at ``segment`` (times 16), the code's at ``segment + code``."""
    for register in (sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        register.base, register.selector, register.limit = segment << 4, segment, 0xFFFF
    sregs.cs.base, sregs.cs.selector = (segment + code) << 4, segment + code


def _flat(sregs: Any, gdt: int, code: int, data: int, *, wide: bool) -> None:
    _segment(sregs.cs, code, TYPE_CODE, wide=wide)
    for name in ("ds", "es", "fs", "gs", "ss"):
        _segment(getattr(sregs, name), data, TYPE_DATA)
    _task(sregs.tr)
    sregs.gdt.base, sregs.gdt.limit = gdt, GDT_ENTRIES * 8 - 1
    sregs.idt.base = sregs.idt.limit = 0


def protected(sregs: Any, gdt: int) -> None:
    """32-bit protected mode, flat segments, no paging."""
    _flat(sregs, gdt, CODE, DATA, wide=False)
    sregs.cr0 = CR0_PE | CR0_ET


def long(sregs: Any, gdt: int, *, user: bool = False, xsave: bool = False) -> None:
    """64-bit long mode with the ``tables`` at ``gdt``; at CPL 3 with ``user``. SSE is enabled; with ``xsave`` the guest
    may use AVX, if XCR0 allows it."""
    _flat(sregs, gdt, USER_CODE if user else CODE, USER_DATA if user else DATA, wide=True)
    if user:
        sregs.tr.base, sregs.tr.limit = gdt + TSS_OFFSET, TSS_LIMIT
    sregs.cr3 = gdt + GDT_SIZE
    sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | (CR4_OSXSAVE if xsave else 0)
    sregs.efer = EFER_LME | EFER_LMA
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_PG

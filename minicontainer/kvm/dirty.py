"""Pages that a guest has written: bitmaps of a slot, and the ring of a processor.

The ring (Linux Documentation/virt/kvm/api.rst, "KVM_CAP_DIRTY_LOG_RING") costs as much as was written, and not as much
as there is memory. Its order of use: enable the capability before the first processor, map each processor's ring, and
then, again and again, ``take`` and ``Vm.reset_dirty_rings``.
"""

from __future__ import annotations

from minicontainer.kvm.descriptor import PAGE, listed, mapped, number
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minicontainer.kvm.vcpu import Vcpu

WORD = 64  # bits of a bitmap's words: KVM writes whole ones


def room(pages: int) -> bytearray:
    """A bitmap for ``pages`` pages."""
    return bytearray(-(-pages // WORD) * 8 or 8)


def pages_of(bitmap: bytes | bytearray) -> list[int]:
    """The numbers of the bits that are set."""
    return [8 * at + bit for at, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1]


def bitmap_of(pages: Iterable[int], count: int) -> bytearray:
    """A bitmap of ``count`` pages with these bits set."""
    bitmap = room(count)
    for page in listed("pages", pages):
        if not 0 <= number("page", page, 64) < count:
            raise ValueError(f"page {page}: the slot has {count}")
        bitmap[page // 8] |= 1 << page % 8
    return bitmap


class DirtyRing:
    """The ring of one processor. ``close()``, the end of a ``with``, or garbage collection unmaps it. ValueError: it
    has none."""

    def __init__(self, vcpu: Vcpu) -> None:
        size = vcpu.ring_size  # with which the capability was enabled: the kernel has no pages behind them
        if not size:
            raise ValueError('dirty ring: there is none (enable_cap("KVM_CAP_DIRTY_LOG_RING", bytes) makes them)')
        self._pages: Any = mapped(vcpu.fd, size, lib.KVM_DIRTY_LOG_PAGE_OFFSET * PAGE, "dirty ring")
        self._count, self._next = size // ffi.sizeof("struct kvm_dirty_gfn"), 0

    def __enter__(self) -> DirtyRing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the ring."""
        self._pages = None

    def take(self) -> list[tuple[int, int]]:
        """(slot, page of the slot) of each write since the last call. The entries are free again, and the pages are
        watched again, after ``Vm.reset_dirty_rings``. ValueError: the ring is closed."""
        pages = self._pages
        if pages is None:
            raise ValueError("dirty ring: it is closed")
        entries, found = ffi.cast("struct kvm_dirty_gfn *", pages), []
        while (entry := entries[self._next]).flags & lib.KVM_DIRTY_GFN_F_DIRTY:
            found.append((entry.slot & 0xFFFF, entry.offset))  # above: the address space, 0 outside of SMM
            entry.flags = lib.KVM_DIRTY_GFN_F_RESET
            self._next = (self._next + 1) % self._count
        return found

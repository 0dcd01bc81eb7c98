"""Writes to devices that KVM collects without exits (Linux Documentation/virt/kvm/api.rst,
"KVM_(UN)REGISTER_COALESCED_MMIO")."""

from __future__ import annotations

from minicontainer.errors import UnsupportedError
from minicontainer.kvm.descriptor import PAGE
from minicontainer.native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.kvm.vcpu import Vcpu
else:
    from minicontainer.records import NamedTuple


class CoalescedWrite(NamedTuple):
    """One write to an address, or with ``pio`` to a port."""

    address: int
    data: bytes
    pio: bool


class CoalescedRing:
    """The ring of a machine, which every processor maps some pages behind its struct kvm_run: the value of
    KVM_CAP_COALESCED_MMIO. Can be used until the processor is closed. UnsupportedError: this KVM collects no writes."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu, self._offset = vcpu, vcpu.vm.check_extension("KVM_CAP_COALESCED_MMIO") * PAGE
        if not self._offset:
            raise UnsupportedError("coalesced ring", None, "this KVM collects no writes")
        header = ffi.sizeof("struct kvm_coalesced_mmio_ring")
        self._count = (PAGE - header) // ffi.sizeof("struct kvm_coalesced_mmio")

    def take(self) -> list[CoalescedWrite]:
        """The writes since the last call, oldest first. A full ring makes exits again. ValueError: the processor is
        closed."""
        page, _ = self._vcpu.mapped()
        ring = ffi.cast("struct kvm_coalesced_mmio_ring *", page + self._offset)
        found = []
        while ring.first != ring.last:
            write = ring.coalesced_mmio[ring.first]
            found.append(CoalescedWrite(write.phys_addr, bytes(write.data)[: write.len], bool(write.pio)))
            ring.first = (ring.first + 1) % self._count
        return found

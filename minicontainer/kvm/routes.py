"""Where interrupts go, and which MSRs a guest may use: the tables that a machine's ioctls take."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.kvm.descriptor import listed, number, structure
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any, NamedTuple
else:
    from minicontainer.records import NamedTuple

ROUTING, FILTER = "KVM_SET_GSI_ROUTING", "KVM_X86_SET_MSR_FILTER"
CHIPS = {"master": "KVM_IRQCHIP_PIC_MASTER", "slave": "KVM_IRQCHIP_PIC_SLAVE", "ioapic": "KVM_IRQCHIP_IOAPIC"}


class PinRoute(NamedTuple):
    """The interrupt ``gsi`` is pin ``pin`` of ``"master"``, ``"slave"`` or ``"ioapic"``."""

    gsi: int
    chip: str
    pin: int


class MsiRoute(NamedTuple):
    """The interrupt ``gsi`` is a message: ``data`` written to ``address``."""

    gsi: int
    address: int
    data: int


class MsrRange(NamedTuple):
    """``length`` MSRs from ``base`` on, of which the guest may read (``read``) and write (``write``) those in
    ``allowed``, and no other."""

    base: int
    length: int
    allowed: Collection[int] = ()
    read: bool = True
    write: bool = True


def routing(routes: Sequence[PinRoute | MsiRoute]) -> Any:
    """A ``struct kvm_irq_routing *``."""
    entries = [_entry(route) for route in listed(ROUTING, routes)]
    return structure(ROUTING, "struct kvm_irq_routing", {"nr": len(entries), "entries": entries})


def _entry(route: PinRoute | MsiRoute) -> dict[str, Any]:
    if isinstance(route, PinRoute):
        pin = {"irqchip": chip_id(route.chip), "pin": route.pin}
        return {"gsi": route.gsi, "type": lib.KVM_IRQ_ROUTING_IRQCHIP, "u": {"irqchip": pin}}
    if not isinstance(route, MsiRoute):
        raise TypeError(f"{ROUTING} takes PinRoute and MsiRoute, not {type(route).__name__}")
    number(f"{ROUTING} address", route.address, 64)
    message = {"address_lo": route.address & 0xFFFFFFFF, "address_hi": route.address >> 32, "data": route.data}
    return {"gsi": route.gsi, "type": lib.KVM_IRQ_ROUTING_MSI, "u": {"msi": message}}


def chip_id(chip: str) -> int:
    """The number of an interrupt controller."""
    if not isinstance(chip, str) or chip not in CHIPS:
        raise ValueError(f"irqchip {chip!r}: is none of {', '.join(CHIPS)}")
    number: int = getattr(lib, CHIPS[chip])
    return number


def msr_filter(ranges: Sequence[MsrRange], deny: bool) -> tuple[Any, list[Any]]:
    """A ``struct kvm_msr_filter *``, and the bitmaps that it points to."""
    ranges = listed(FILTER, ranges)
    if len(ranges) > lib.KVM_MSR_FILTER_MAX_RANGES:
        raise ValueError(f"{len(ranges)} ranges of MSRs: KVM takes {lib.KVM_MSR_FILTER_MAX_RANGES}")
    filter_ = ffi.new("struct kvm_msr_filter *", {"flags": lib.KVM_MSR_FILTER_DEFAULT_DENY if deny else 0})
    bitmaps = [ffi.new("uint8_t[]", _bits(wanted)) for wanted in ranges]
    for entry, wanted, bitmap in zip(filter_.ranges, ranges, bitmaps, strict=False):
        entry.flags = bool(wanted.read) * lib.KVM_MSR_FILTER_READ | bool(wanted.write) * lib.KVM_MSR_FILTER_WRITE
        entry.base, entry.nmsrs, entry.bitmap = wanted.base, wanted.length, bitmap
    return filter_, bitmaps


def _bits(wanted: MsrRange) -> bytes:
    if not isinstance(wanted, MsrRange):
        raise TypeError(f"{FILTER} takes MsrRange, not {type(wanted).__name__}")
    number(f"{FILTER} base", wanted.base)
    most = 8 * lib.KVM_MSR_FILTER_MAX_BITMAP_SIZE
    if number(f"{FILTER} length", wanted.length) > most:
        raise SpecError(f"{FILTER} length", wanted.length, f"is more than a range may have ({most})")
    bits = bytearray(-(-wanted.length // 8) or 1)
    for msr in listed(f"{FILTER} allowed", wanted.allowed):
        at = number(f"{FILTER} allowed", msr) - wanted.base
        if not 0 <= at < wanted.length:
            raise ValueError(f"MSR {msr:#x}: is outside of its range, {wanted.length} from {wanted.base:#x} on")
        bits[at // 8] |= 1 << at % 8
    return bytes(bits)

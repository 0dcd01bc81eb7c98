"""A virtual machine's descriptor (Linux Documentation/virt/kvm/api.rst, "VM ioctls")."""

from __future__ import annotations

from minicontainer.kvm.descriptor import PAGE, Descriptor, hexadecimal, number, structure
from minicontainer.kvm.vcpu import Vcpu
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minicontainer.kvm.coalesced import CoalescedRing
    from minicontainer.kvm.descriptor import Watch
    from minicontainer.kvm.dirty import DirtyRing
    from minicontainer.kvm.routes import MsiRoute, MsrRange, PinRoute


class Vm(Descriptor):
    """The descriptor of KVM_CREATE_VM: a guest physical address space and its processors."""

    def __init__(self, fd: int, watch: Watch | None = None) -> None:
        super().__init__(fd, watch)
        self.mmap_size = 0  # Kvm.get_vcpu_mmap_size
        self._slots: dict[int, int] = {}  # slot -> its size
        self._ring_size = 0  # bytes of each processor's dirty ring
        self.kept: list[object] = []  # what must live as long as this: memory of the guest

    def create_vcpu(self, number: int = 0) -> Vcpu:
        """KVM_CREATE_VCPU: a processor whose (initial) APIC id is ``number``."""
        return Vcpu(self.ioctl_value("KVM_CREATE_VCPU", number), self.mmap_size, self, self._ring_size)

    def _own(self, vcpu: Vcpu, what: str) -> Vcpu:
        if not isinstance(vcpu, Vcpu):
            raise TypeError(f"{what}: is of a Vcpu, not {type(vcpu).__name__}")
        if vcpu.vm is not self:
            raise ValueError(f"{what}: the vcpu is another machine's")
        return vcpu

    def set_boot_cpu_id(self, number: int) -> None:
        """KVM_SET_BOOT_CPU_ID: the processor that does not wait for a SIPI. Before the first ``create_vcpu``."""
        self.ioctl_value("KVM_SET_BOOT_CPU_ID", number)

    def enable_cap(self, capability: str | int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP."""
        from minicontainer.kvm import capabilities

        cap = capabilities.number(capability)
        values = {"cap": cap, "flags": flags, "args": list(args)}
        self.send("KVM_ENABLE_CAP", "struct kvm_enable_cap", values, capability, *args)
        if cap in capabilities.DIRTY_RINGS:
            self._ring_size = args[0]

    def create_device(self, kind: int, *, test: bool = False) -> Descriptor | None:
        """KVM_CREATE_DEVICE of a KVM_DEV_TYPE_*. ``test``: it is not created; OSError (ENODEV): it could not be."""
        flags = lib.KVM_CREATE_DEVICE_TEST if test else 0
        device = structure("KVM_CREATE_DEVICE", "struct kvm_create_device", {"type": kind, "flags": flags})
        self.ioctl("KVM_CREATE_DEVICE", device, kind)
        return None if test else Descriptor(device.fd, self.watch)

    # ---- memory

    def set_user_memory_region(
        self,
        slot: int,
        guest_phys_addr: int,
        size: int,
        host: int,
        flags: int = 0,
        *,
        guest_memfd: int | None = None,
        guest_memfd_offset: int = 0,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION: ``size`` bytes at the address ``host`` of this process become guest memory.

        ``flags``: KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY. Size 0 removes the slot. The caller owns the memory, and
        keeps it mapped. With ``guest_memfd``: KVM_SET_USER_MEMORY_REGION2, and private pages are those of this file."""
        what = f"slot {slot}", hexadecimal(guest_phys_addr), f"{hexadecimal(size)} bytes"
        values: tuple[int, ...] = (slot, flags, guest_phys_addr, size, host)
        if guest_memfd is None:
            self.send("KVM_SET_USER_MEMORY_REGION", "struct kvm_userspace_memory_region", values, *what)
        else:
            values = (slot, flags | lib.KVM_MEM_GUEST_MEMFD, *values[2:], guest_memfd_offset, guest_memfd)
            self.send("KVM_SET_USER_MEMORY_REGION2", "struct kvm_userspace_memory_region2", values, *what)
        self._slots[slot] = size
        if not size:
            del self._slots[slot]  # pages that were there are gone

    def _pages(self, slot: int) -> int:
        if number("slot", slot) not in self._slots:
            raise ValueError(f"slot {slot}: was not set here (set_user_memory_region)")
        return self._slots[slot] // PAGE

    def create_guest_memfd(self, size: int, flags: int = 0) -> Descriptor:
        """KVM_CREATE_GUEST_MEMFD: a file of guest memory, which this process cannot map unless ``flags`` has
        GUEST_MEMFD_FLAG_MMAP. Since Linux 6.8 (KVM_CAP_GUEST_MEMFD), flags since 6.18 (KVM_CAP_GUEST_MEMFD_FLAGS)."""
        values = {"size": size, "flags": flags}
        what = f"{hexadecimal(size)} bytes"
        fd = self.send("KVM_CREATE_GUEST_MEMFD", "struct kvm_create_guest_memfd", values, what)
        return Descriptor(fd, self.watch)

    def set_memory_attributes(self, address: int, size: int, attributes: int) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES: KVM_MEMORY_ATTRIBUTE_PRIVATE, or 0 (KVM_CAP_MEMORY_ATTRIBUTES)."""
        what = hexadecimal(address), f"{hexadecimal(size)} bytes", hexadecimal(attributes)
        values = (address, size, attributes)
        self.send("KVM_SET_MEMORY_ATTRIBUTES", "struct kvm_memory_attributes", values, *what)

    def get_dirty_log(self, slot: int) -> list[int]:
        """KVM_GET_DIRTY_LOG: the numbers of the slot's pages that were written since the last call (with
        KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: since they were cleared). ValueError: no such slot was set by this object."""
        from minicontainer.kvm import dirty

        bitmap = dirty.room(self._pages(slot))
        values = {"slot": slot, "dirty_bitmap": ffi.from_buffer(bitmap)}
        self.send("KVM_GET_DIRTY_LOG", "struct kvm_dirty_log", values, f"slot {slot}")
        return dirty.pages_of(bitmap)

    def clear_dirty_log(self, slot: int, pages: Iterable[int]) -> None:
        """KVM_CLEAR_DIRTY_LOG: these pages of the slot are watched anew (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
        ValueError: the slot was not set by this object, or has no such page."""
        from minicontainer.kvm import dirty

        count = self._pages(slot)
        bitmap = dirty.bitmap_of(pages, count)
        values = (slot, count, 0, ffi.from_buffer(bitmap))
        self.send("KVM_CLEAR_DIRTY_LOG", "struct kvm_clear_dirty_log", values, f"slot {slot}")

    def dirty_ring(self, vcpu: Vcpu) -> DirtyRing:
        """Maps the ring of one of this machine's processors, after ``enable_cap("KVM_CAP_DIRTY_LOG_RING", 16 *
        entries)``. ValueError: it has none, or is another machine's."""
        from minicontainer.kvm.dirty import DirtyRing

        return DirtyRing(self._own(vcpu, "dirty ring"))

    def reset_dirty_rings(self) -> int:
        """KVM_RESET_DIRTY_RINGS: the pages that were taken from the rings are watched anew. Returns their number."""
        return self.ioctl_value("KVM_RESET_DIRTY_RINGS")

    # ---- interrupts and clocks

    def set_tss_addr(self, address: int) -> None:
        """KVM_SET_TSS_ADDR: three pages below 4 GiB, which Intel's processors need for real mode."""
        self.ioctl_value("KVM_SET_TSS_ADDR", address)

    def set_identity_map_addr(self, address: int) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR: one more page for the same purpose. Call it before the first ``create_vcpu``."""
        self.send("KVM_SET_IDENTITY_MAP_ADDR", "uint64_t", address, hexadecimal(address))

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: two PICs, an IOAPIC, and a local APIC for every processor that is created later."""
        self.ioctl_value("KVM_CREATE_IRQCHIP")

    def create_pit2(self, flags: int = 0) -> None:
        """KVM_CREATE_PIT2: the timer at ports 0x40 to 0x43; with KVM_PIT_SPEAKER_DUMMY port 0x61 too."""
        self.send("KVM_CREATE_PIT2", "struct kvm_pit_config", {"flags": flags})

    def irq_line(self, irq: int, level: int) -> None:
        """KVM_IRQ_LINE."""
        self.send("KVM_IRQ_LINE", "struct kvm_irq_level", (irq, level), irq, level)

    def signal_msi(self, address: int, data: int) -> int:
        """KVM_SIGNAL_MSI: sends an interrupt message. Above 0: it was delivered; 0: the guest has blocked it."""
        number("KVM_SIGNAL_MSI address", address, 64)
        values = (address & 0xFFFFFFFF, address >> 32, data, 0)
        return self.send("KVM_SIGNAL_MSI", "struct kvm_msi", values, hexadecimal(address), hexadecimal(data))

    def set_gsi_routing(self, routes: Sequence[PinRoute | MsiRoute]) -> None:
        """KVM_SET_GSI_ROUTING: the whole table of what each interrupt of ``irq_line`` and ``irqfd`` is."""
        from minicontainer.kvm.routes import routing

        table = routing(routes)
        self.ioctl("KVM_SET_GSI_ROUTING", table, f"{table.nr} routes")

    def irqfd(self, fd: int, gsi: int, *, resamplefd: int | None = None, deassign: bool = False) -> None:
        """KVM_IRQFD: a write to the eventfd raises the interrupt ``gsi``. With ``resamplefd`` it stays raised until the
        guest acknowledges it, which lowers it and signals that eventfd."""
        flags = lib.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        flags |= 0 if resamplefd is None else lib.KVM_IRQFD_FLAG_RESAMPLE
        self.send("KVM_IRQFD", "struct kvm_irqfd", (fd, gsi, flags, resamplefd or 0), fd, gsi)

    def ioeventfd(
        self, fd: int, address: int, size: int, *, pio: bool = False, value: int | None = None, deassign: bool = False
    ) -> None:
        """KVM_IOEVENTFD: a write of ``size`` bytes (of ``value`` alone, if given) to the guest's address or port
        signals the eventfd, without an exit."""
        flags = lib.KVM_IOEVENTFD_FLAG_PIO if pio else 0
        flags |= 0 if value is None else lib.KVM_IOEVENTFD_FLAG_DATAMATCH
        flags |= lib.KVM_IOEVENTFD_FLAG_DEASSIGN if deassign else 0
        values = (value or 0, address, size, fd, flags)
        self.send("KVM_IOEVENTFD", "struct kvm_ioeventfd", values, hexadecimal(address), size)

    def register_coalesced_mmio(self, address: int, size: int, *, pio: bool = False) -> None:
        """KVM_REGISTER_COALESCED_MMIO: writes there make no exits, and are collected (``coalesced_ring``)."""
        zone = (address, size, pio)
        self.send("KVM_REGISTER_COALESCED_MMIO", "struct kvm_coalesced_mmio_zone", zone, hexadecimal(address), size)

    def unregister_coalesced_mmio(self, address: int, size: int, *, pio: bool = False) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO."""
        zone = (address, size, pio)
        self.send("KVM_UNREGISTER_COALESCED_MMIO", "struct kvm_coalesced_mmio_zone", zone, hexadecimal(address), size)

    def coalesced_ring(self, vcpu: Vcpu) -> CoalescedRing:
        """The writes that were collected, by way of any processor of this machine. ValueError: it is another
        machine's."""
        from minicontainer.kvm.coalesced import CoalescedRing

        return CoalescedRing(self._own(vcpu, "coalesced ring"))

    def set_msr_filter(self, ranges: Sequence[MsrRange], *, deny: bool = False) -> None:
        """KVM_X86_SET_MSR_FILTER. ``deny``: the guest may use no MSR outside of the ranges. What it may not is #GP, or
        an MsrExit with KVM_CAP_X86_USER_SPACE_MSR and KVM_MSR_EXIT_REASON_FILTER."""
        from minicontainer.kvm.routes import msr_filter

        value, bitmaps = msr_filter(ranges, deny)
        self.ioctl("KVM_X86_SET_MSR_FILTER", value, f"{len(bitmaps)} ranges")

    def get_irqchip(self, chip: str) -> Any:
        """KVM_GET_IRQCHIP of ``"master"``, ``"slave"`` or ``"ioapic"``: a ``struct kvm_irqchip *``."""
        from minicontainer.kvm.routes import chip_id

        value = structure("KVM_GET_IRQCHIP", "struct kvm_irqchip", {"chip_id": chip_id(chip)})
        self.ioctl("KVM_GET_IRQCHIP", value, chip)
        return value

    def set_irqchip(self, value: Any) -> None:
        """KVM_SET_IRQCHIP of the chip ``value.chip_id``."""
        self.put("KVM_SET_IRQCHIP", "struct kvm_irqchip", value)

    def get_pit2(self) -> Any:
        """KVM_GET_PIT2: a ``struct kvm_pit_state2 *``."""
        return self.get("KVM_GET_PIT2", "struct kvm_pit_state2")

    def set_pit2(self, value: Any) -> None:
        """KVM_SET_PIT2."""
        self.put("KVM_SET_PIT2", "struct kvm_pit_state2", value)

    def get_clock(self) -> Any:
        """KVM_GET_CLOCK: a ``struct kvm_clock_data *``; ``clock`` in nanoseconds since the machine's creation."""
        return self.get("KVM_GET_CLOCK", "struct kvm_clock_data")

    def set_clock(self, nanoseconds: int) -> None:
        """KVM_SET_CLOCK."""
        self.send("KVM_SET_CLOCK", "struct kvm_clock_data", {"clock": nanoseconds}, nanoseconds)

"""A virtual machine's descriptor (Linux Documentation/virt/kvm/api.rst, "VM ioctls")."""

from __future__ import annotations

from typing import Any

from minicontainer.kvm.descriptor import Descriptor, Watch
from minicontainer.kvm.vcpu import Vcpu
from minicontainer.native import ffi, lib

PAGE = 4096
CHIPS = {"master": "KVM_IRQCHIP_PIC_MASTER", "slave": "KVM_IRQCHIP_PIC_SLAVE", "ioapic": "KVM_IRQCHIP_IOAPIC"}


class Vm(Descriptor):
    """The descriptor of KVM_CREATE_VM: a guest physical address space and its processors."""

    def __init__(self, fd: int, watch: Watch | None = None) -> None:
        super().__init__(fd, watch)
        self.mmap_size = 0  # Kvm.get_vcpu_mmap_size
        self._slots: dict[int, int] = {}  # slot -> its size

    def create_vcpu(self, number: int = 0) -> Vcpu:
        """KVM_CREATE_VCPU: a processor whose (initial) APIC id is ``number``."""
        return Vcpu(self.ioctl_value("KVM_CREATE_VCPU", number), self.mmap_size, self.watch)

    def check_extension(self, capability: str) -> int:
        """KVM_CHECK_EXTENSION for this machine."""
        return self.ioctl_value("KVM_CHECK_EXTENSION", getattr(lib, capability))

    def enable_cap(self, capability: str, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP."""
        value = ffi.new(
            "struct kvm_enable_cap *", {"cap": getattr(lib, capability), "flags": flags, "args": list(args)}
        )
        self.ioctl("KVM_ENABLE_CAP", value, capability, *args)

    # ---- memory

    def set_user_memory_region(self, slot: int, guest_phys_addr: int, size: int, host: int, flags: int = 0) -> None:
        """KVM_SET_USER_MEMORY_REGION: ``size`` bytes at the address ``host`` of this process become guest memory.

        ``flags``: KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY. Size 0 removes the slot. The caller owns the memory, and
        keeps it mapped."""
        region = ffi.new("struct kvm_userspace_memory_region *", (slot, flags, guest_phys_addr, size, host))
        self.ioctl("KVM_SET_USER_MEMORY_REGION", region, f"slot {slot}", f"{guest_phys_addr:#x}", f"{size:#x} bytes")
        self._slots[slot] = size

    def get_dirty_log(self, slot: int) -> list[int]:
        """KVM_GET_DIRTY_LOG: the numbers of the slot's pages that were written since the last call."""
        size = self._slots.get(slot, 0)
        bitmap = bytearray(-(-size // PAGE // 64) * 8 or 8)
        log = ffi.new("struct kvm_dirty_log *", {"slot": slot, "dirty_bitmap": ffi.from_buffer(bitmap)})
        self.ioctl("KVM_GET_DIRTY_LOG", log, f"slot {slot}")
        return [8 * at + bit for at, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1]

    # ---- interrupts and clocks

    def set_tss_addr(self, address: int) -> None:
        """KVM_SET_TSS_ADDR: three pages below 4 GiB, which Intel's processors need for real mode."""
        self.ioctl_value("KVM_SET_TSS_ADDR", address)

    def set_identity_map_addr(self, address: int) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR: one more page for the same purpose. Call it before the first ``create_vcpu``."""
        self.ioctl("KVM_SET_IDENTITY_MAP_ADDR", ffi.new("uint64_t *", address), f"{address:#x}")

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: two PICs, an IOAPIC, and a local APIC for every processor that is created later."""
        self.ioctl_value("KVM_CREATE_IRQCHIP")

    def create_pit2(self, flags: int = 0) -> None:
        """KVM_CREATE_PIT2: the timer at ports 0x40 to 0x43; with KVM_PIT_SPEAKER_DUMMY port 0x61 too."""
        self.ioctl("KVM_CREATE_PIT2", ffi.new("struct kvm_pit_config *", {"flags": flags}))

    def irq_line(self, irq: int, level: int) -> None:
        """KVM_IRQ_LINE."""
        self.ioctl("KVM_IRQ_LINE", ffi.new("struct kvm_irq_level *", (irq, level)), irq, level)

    def signal_msi(self, address: int, data: int) -> int:
        """KVM_SIGNAL_MSI: sends an interrupt message. Above 0: it was delivered; 0: the guest has blocked it."""
        message = ffi.new("struct kvm_msi *", (address & 0xFFFFFFFF, address >> 32, data, 0))
        return self.ioctl("KVM_SIGNAL_MSI", message, f"{address:#x}", f"{data:#x}")

    def irqfd(self, fd: int, gsi: int, *, deassign: bool = False) -> None:
        """KVM_IRQFD: a write to the eventfd raises the interrupt ``gsi``."""
        flags = lib.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        self.ioctl("KVM_IRQFD", ffi.new("struct kvm_irqfd *", (fd, gsi, flags, 0)), fd, gsi)

    def ioeventfd(
        self, fd: int, address: int, size: int, *, pio: bool = False, value: int | None = None, deassign: bool = False
    ) -> None:
        """KVM_IOEVENTFD: a write of ``size`` bytes (of ``value`` alone, if given) to the guest's address or port
        signals the eventfd, without an exit."""
        flags = lib.KVM_IOEVENTFD_FLAG_PIO if pio else 0
        flags |= 0 if value is None else lib.KVM_IOEVENTFD_FLAG_DATAMATCH
        flags |= lib.KVM_IOEVENTFD_FLAG_DEASSIGN if deassign else 0
        event = ffi.new("struct kvm_ioeventfd *", (value or 0, address, size, fd, flags))
        self.ioctl("KVM_IOEVENTFD", event, f"{address:#x}", size)

    def get_irqchip(self, chip: str) -> Any:
        """KVM_GET_IRQCHIP of ``"master"``, ``"slave"`` or ``"ioapic"``: a ``struct kvm_irqchip *``."""
        value = ffi.new("struct kvm_irqchip *", {"chip_id": getattr(lib, CHIPS[chip])})
        self.ioctl("KVM_GET_IRQCHIP", value, chip)
        return value

    def set_irqchip(self, value: Any) -> None:
        """KVM_SET_IRQCHIP of the chip ``value.chip_id``."""
        self.ioctl("KVM_SET_IRQCHIP", value)

    def get_pit2(self) -> Any:
        """KVM_GET_PIT2: a ``struct kvm_pit_state2 *``."""
        return self.get("KVM_GET_PIT2", "struct kvm_pit_state2")

    def set_pit2(self, value: Any) -> None:
        """KVM_SET_PIT2."""
        self.ioctl("KVM_SET_PIT2", value)

    def get_clock(self) -> Any:
        """KVM_GET_CLOCK: a ``struct kvm_clock_data *``; ``clock`` in nanoseconds since the machine's creation."""
        return self.get("KVM_GET_CLOCK", "struct kvm_clock_data")

    def set_clock(self, nanoseconds: int) -> None:
        """KVM_SET_CLOCK."""
        self.ioctl("KVM_SET_CLOCK", ffi.new("struct kvm_clock_data *", {"clock": nanoseconds}), nanoseconds)

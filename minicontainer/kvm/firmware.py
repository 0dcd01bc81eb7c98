"""Firmware: an image that ends at 4 GiB, where a processor begins after its reset.

The first instruction is fetched at FFFF:FFF0, 16 bytes below 4 GiB (Intel SDM volume 3, "First Instruction Executed").
As on a PC, the last part is below 1 MiB too, in memory that can be written: up to 256 KiB, the longest that fits there,
since there is no chipset that would let firmware put its own shadow there. What the firmware wants to know of the
machine it finds in the clock's RAM and in fw_cfg.
"""

from __future__ import annotations

import mmap
import struct

from minicontainer.errors import SpecError
from minicontainer.kvm.boot import pc
from minicontainer.kvm.boot.kernel import Entry
from minicontainer.kvm.descriptor import PAGE
from minicontainer.kvm.ports import COM1
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.fwcfg import FwCfg
    from minicontainer.kvm.memory import GuestMemory
    from minicontainer.kvm.rtc import Rtc
    from minicontainer.kvm.vm import Vm

SLOT = 100  # of KVM's memory slots: memory has the first ones
TOP, LARGEST = 1 << 32, 16 << 20  # bytes; below 16 MiB from the top are the local APIC and KVM's own pages
LOW_TOP, LOW_MAX = pc.RESERVED_END, 256 << 10  # the copy below 1 MiB
RESET_RIP = 0xFFF0

# Registers of the clock's RAM: memory above 1 MiB and above 16 MiB, as every PC had them; above 4 GiB, as Bochs does.
CMOS_ABOVE_1M, CMOS_ABOVE_16M, CMOS_ABOVE_4G = 0x30, 0x34, 0x5B


def check(image: Kernel) -> None:
    """KernelError: it is no firmware."""
    if image.size % PAGE or image.size > LARGEST:
        raise image.error(f"is no firmware: it has {image.size} bytes, which are not whole pages, up to 16 MiB")


def load(image: Kernel, memory: GuestMemory, vm: Vm) -> tuple[Entry, Callable[[], None]]:
    """Puts the image below 4 GiB, and its end below 1 MiB. Returns how it is entered, and what unmaps it.

    KernelError: it is no firmware; SpecError: there is less than 1 MiB of memory."""
    check(image)
    if memory.regions[0].size < LOW_TOP:
        raise SpecError("memory", memory.size, "is too little for firmware, which is at 1 MiB too", "--memory 64m")
    content = image.read(0, image.size, "the image")
    low = content[-LOW_MAX:]
    memory.write(LOW_TOP - len(low), low)
    rom = mmap.mmap(-1, image.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    rom[:] = content
    view = ffi.from_buffer(rom)
    address = int(ffi.cast("uintptr_t", view))

    def unmap() -> None:
        ffi.release(view)
        rom.close()

    try:
        vm.set_user_memory_region(SLOT, TOP - image.size, image.size, address, lib.KVM_MEM_READONLY)
    except BaseException:
        unmap()
        raise
    vm.kept.append(rom)
    return Entry("firmware", "reset", RESET_RIP, {}, [(LOW_TOP - len(low), len(low))], irqchip=True), unmap


def tell(memory: GuestMemory, rtc: Rtc, fw_cfg: FwCfg) -> None:
    """Says how much memory there is, in the clock's RAM and in fw_cfg, and where SeaBIOS shows its screen."""
    low = memory.regions[0].size
    for register, format_, value in (
        (CMOS_ABOVE_1M, "<H", min(max(low - (1 << 20), 0) >> 10, 0xFFFF)),
        (CMOS_ABOVE_16M, "<H", max(low - (16 << 20), 0) >> 16),
        (CMOS_ABOVE_4G, "<I", (memory.size - low) >> 16),
    ):
        struct.pack_into(format_, rtc.ram, register, value)
    e820 = b"".join(pc.E820.pack(region.address, region.size, pc.RAM) for region in memory.regions)
    for name, content in (("etc/e820", e820), ("etc/sercon-port", struct.pack("<Q", COM1))):
        if name not in fw_cfg.names:
            fw_cfg.add(name, content)

"""What a PC's firmware leaves in memory for a kernel, on request: the BIOS data area and the MP table."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.kvm import mptable
from minicontainer.kvm.boot import bios, pc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.kernel import Entry
    from minicontainer.kvm.memory import GuestMemory

USED = [bios.DATA_AREA, pc.BIOS_AREA]


def write(entry: Entry, memory: GuestMemory, cpus: int, *, irqchip: bool, screen: bool = False) -> Entry:
    """Writes it, the MP table if there are APICs; returns the entry with the memory that it occupies. SpecError: it
    would lie over the kernel, or there is no memory for it."""
    if memory.regions[0].size < pc.RESERVED_END:
        raise SpecError("bios_data", None, "needs 1 MiB of memory", "--memory 1m")
    if not entry.linux:  # whose loader has kept clear of it
        for _, (start, size) in pc.overlaps(entry.used, USED):
            where = f"{start:#x} to {start + size:#x}"
            raise SpecError("bios_data", None, f"is at {where}, where the kernel is too", "--load-address")
    bios.write_data(memory, screen=screen)
    if irqchip:
        mptable.write(memory, cpus)
    return entry._replace(used=[*entry.used, *USED])

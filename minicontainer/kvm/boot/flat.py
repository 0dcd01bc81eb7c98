"""Flat binaries, loaded and entered at one address."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.format import Usual, memory_up_to
from minicontainer.kvm.boot.kernel import Entry, entry_error, remedy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.memory import GuestMemory

REAL_ADDRESS = 0x1000  # as in LWN's "Using the KVM API"
ADDRESS = 0x100000  # above a PC's BIOS area


class Flat(Usual):
    """The format that any file has."""

    name, modes = "flat", ("real", "protected", "long", "user64")
    as_flat = True
    options = ("load_address", "entry")

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return True

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        return memory_up_to(ADDRESS + kernel.size)

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        mode = options.mode or "real"
        default = REAL_ADDRESS if mode == "real" else ADDRESS
        address = default if options.load_address is None else options.load_address
        copy(kernel, memory, address)
        start = address if options.entry is None else options.entry
        if reason := entry_error(memory, mode, start):
            raise SpecError("entry", hex(start), reason, "--mode protected" if mode == "real" else "")
        registers = {"rsp": REAL_ADDRESS} if mode == "real" else {}
        return Entry("flat", mode, start, registers, [(address, kernel.size)], guessed=options.mode is None)


FORMATS = (Flat(),)


def copy(kernel: Kernel, memory: GuestMemory, address: int) -> None:
    """Copies the file to an address of the first region of memory."""
    size = memory.regions[0].size
    if address < 0 or address + kernel.size > size:
        reason = f"its {kernel.size} bytes at {address:#x} do not fit into memory ({memory.describe()})"
        raise kernel.error(reason, remedy(address, kernel.size, "--load-address"))
    memory.read_from(kernel, address, kernel.size, 0, "the file")

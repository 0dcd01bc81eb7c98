"""Boot sectors, at 0x7c00, with a BIOS that prints."""

from __future__ import annotations

from minicontainer.kvm.boot import bios, flat
from minicontainer.kvm.boot.format import MEMORY, Usual
from minicontainer.kvm.boot.kernel import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.memory import GuestMemory

SIZE = 512
MARK = b"\x55\xaa"  # its last bytes
ADDRESS = 0x7C00


class Sector(Usual):
    """The format. With an address, the sector is a flat binary."""

    name, modes, options = "boot-sector", ("real",), ("load_address", "entry")
    as_flat = True

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return kernel.size == SIZE and kernel.head[-2:] == MARK

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        return MEMORY

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """Entered as by a PC's BIOS: DL is the drive. INT 10h prints; other calls set carry."""
        if options.load_address is not None or options.entry is not None:
            return flat.FORMATS[0].load(kernel, memory, options)
        flat.copy(kernel, memory, ADDRESS)
        bios.write(kernel, memory, screen=options.screen)
        return Entry(self.name, "real", ADDRESS, {"rsp": ADDRESS, "rdx": 0x80}, [(ADDRESS, SIZE)])


FORMATS = (Sector(),)

"""What both versions of multiboot do: a kernel that is found by its header, files beside it, which ``--initrd`` names,
and a description of memory."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.kvm.boot import bios, elf, foreign, pc
from minicontainer.kvm.boot.format import LINUX_MEMORY, MEMORY, Usual
from minicontainer.kvm.boot.kernel import Entry, entry_error, remedy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from typing import NamedTuple

    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.memory import GuestMemory
else:
    from minicontainer.records import NamedTuple

LOADER = b"minicontainer"
LOW = [*bios.USED, *pc.USED]  # below 1 MiB
HIGHEST = 1 << 32  # modules are described by 32-bit addresses
EGA_TEXT = 2  # framebuffer_type, in both versions


def framebuffer() -> tuple[int, ...]:
    """The screen, in the order of the fields of both versions: address, bytes of a line, columns, lines, bits of a
    cell, type."""
    return pc.TEXT, 2 * pc.COLUMNS, pc.COLUMNS, pc.LINES, 16, EGA_TEXT


class Module(NamedTuple):
    """A file in memory, and its text: the path, and what followed it."""

    start: int
    end: int
    text: str


class Place(NamedTuple):
    """Where a kernel without an ELF header goes: the header's address fields, and where the header is in the file."""

    header: int  # its offset in the file
    header_address: int
    load: int
    load_end: int  # 0: to the end of the file
    bss_end: int  # 0: none
    entry: int


class Version(Usual):
    """One version. Its ``header`` begins with ``magic``, is in the first ``searched`` bytes of the file at a multiple
    of ``alignment``, and its fields add up to 0. ``entry_magic``: EAX at the entry."""

    name: str
    options = ("initrd", "append")
    magic: int
    entry_magic: int
    header: Struct
    searched: int
    alignment: int

    def parse(self, kernel: Kernel, at: int, *, screen: bool) -> tuple[Place | None, int | None]:
        """Where the header at ``at`` says that the kernel goes (None: its ELF header does), and where that is entered.
        KernelError: it asks for what is not here, such as a ``screen``."""
        raise NotImplementedError

    def write_info(self, memory: GuestMemory, append: str, loaded: list[Module], *, screen: bool) -> None:
        """Writes the information for the kernel to pc.INFO."""
        raise NotImplementedError

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return self._find(kernel) is not None

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        place, _ = self._placed(kernel, screen=True)  # load() says if there must be one
        end_of(kernel, place)
        return LINUX_MEMORY

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        place, start = self._placed(kernel, screen=options.screen)
        entry = load_kernel(kernel, memory, place, start, self.name)
        loaded = load_modules(memory, options.initrd, end_of(kernel, place))
        self.write_info(memory, options.append or "", loaded, screen=options.screen)
        bios.write(kernel, memory, screen=options.screen)
        bios.write_data(memory, screen=options.screen)
        used = [*entry.used, *pc.USED, *bios.USED, *((m.start, m.end - m.start) for m in loaded)]
        registers = {"rax": self.entry_magic, "rbx": pc.INFO}
        return entry._replace(registers=registers, used=used, irqchip=True, linux=True)

    def _placed(self, kernel: Kernel, *, screen: bool) -> tuple[Place | None, int | None]:
        at = self._find(kernel)
        assert at is not None
        place, entry = self.parse(kernel, at, screen=screen)
        if place is None and not kernel.head.startswith(elf.MAGIC):
            reason = f"its {self.name} header does not say where it goes, and it is no ELF file"
            raise kernel.error(*(foreign.reason(kernel) or (reason, "")))
        return place, entry

    def _find(self, kernel: Kernel) -> int | None:
        head = kernel.head[: self.searched]
        at = -1
        while (at := head.find(self.magic.to_bytes(4, "little"), at + 1)) >= 0:
            fits = at % self.alignment == 0 and at + self.header.size <= len(head)
            if fits and sum(self.header.unpack_from(head, at)) % 2**32 == 0:
                return at
        return None


def load_kernel(kernel: Kernel, memory: GuestMemory, place: Place | None, entry: int | None, name: str) -> Entry:
    """Loads the kernel by its address fields, else as an ELF file. ``entry`` takes the place of the ELF file's."""
    pc.check_memory(kernel, memory, 0, MEMORY)
    if place is not None:
        return _load_at(kernel, memory, place, name)
    headers = elf.parse(kernel)
    pc.check_low(kernel, [(s.paddr, s.memsz) for s in headers.segments], LOW)
    if entry is not None:
        headers = headers._replace(entry=entry)
    return elf.load(kernel, memory, headers, "protected", None)._replace(kind=name)


def end_of(kernel: Kernel, place: Place | None) -> int:
    """The end of the kernel in memory. KernelError: it is not sound."""
    if place is None:
        return elf.parse(kernel).end
    _, size = _extent(kernel, place)
    return max(place.load + size, place.bss_end)


def _extent(kernel: Kernel, place: Place) -> tuple[int, int]:
    """Offset in the file, and size, of what is loaded."""
    offset = place.header - (place.header_address - place.load)
    size = (place.load_end - place.load) if place.load_end else kernel.size - offset
    if offset < 0 or size <= 0 or offset + size > kernel.size:
        places = f"{offset:#x} to {offset + size:#x}"
        raise kernel.error(f"its header says that it lies in the file at {places}, of {kernel.size:#x} bytes")
    return offset, size


def _load_at(kernel: Kernel, memory: GuestMemory, place: Place, name: str) -> Entry:
    offset, size = _extent(kernel, place)
    used = [(place.load, max(size, place.bss_end - place.load))]
    pc.check_low(kernel, used, LOW)
    if place.load + used[0][1] > memory.regions[0].size:
        where = f"its {used[0][1]} bytes at {place.load:#x} do not fit into memory ({memory.describe()})"
        otherwise = "--firmware" if foreign.is_firmware(kernel) else elf.LOWER
        raise kernel.error(where, remedy(place.load, used[0][1], otherwise))
    if reason := entry_error(memory, "protected", place.entry):
        raise kernel.error(f"its entry {place.entry:#x} {reason}")
    memory.read_from(kernel, place.load, size, offset, "the kernel")
    return Entry(name, "protected", place.entry, {}, used)


def load_modules(memory: GuestMemory, given: str | None, above: int) -> list[Module]:
    """Loads the files of ``FILE[ ARGUMENTS][,FILE...]`` (two commas are one in a name), as QEMU's -initrd, each at the
    highest place that is free."""
    modules: list[Module] = []
    texts = [] if given is None else [text.replace("\0", ",") for text in given.replace(",,", "\0").split(",")]
    highest = HIGHEST
    for text in texts:
        path = text.partition(" ")[0]
        if not path:
            raise SpecError("initrd", given, "has a module without a name", "two commas are one in a name")
        start, size = pc.load_initrd(memory, path, max(above, pc.RESERVED_END), highest)
        modules.append(Module(start, start + size, text))
        highest = start
    return modules


def sizes(memory: GuestMemory) -> tuple[int, int]:
    """KiB of memory below 640 KiB, and from 1 MiB on to the first hole."""
    return pc.LOW_END >> 10, (memory.regions[0].size - pc.RESERVED_END) >> 10

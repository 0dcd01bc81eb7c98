"""ELF kernels (System V ABI, "Object Files"; elf(5)), and their notes: the PVH entry, and requests for features."""

from __future__ import annotations

import struct

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.format import Usual, memory_up_to
from minicontainer.kvm.boot.kernel import CPUS_MAX, Entry, entry_error, remedy
from minicontainer.kvm.memory import GuestMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.memory import GuestMemory
else:
    from minicontainer.records import NamedTuple

ET_EXEC, ET_CORE = 2, 4
PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4
MACHINES = {32: 3, 64: 62}  # EM_386, EM_X86_64
NAMES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
}
MAGIC = b"\x7fELF"
HEADER = {32: struct.Struct("<HHIIIIIHHH"), 64: struct.Struct("<HHIQQQIHHH")}  # from e_type to e_phnum
PROGRAM = {32: struct.Struct("<IIIIIIII"), 64: struct.Struct("<IIQQQQQQ")}
NO_LOADER = b"/nonexistent/"
LOWER = "link it for lower addresses, in the linker script with AT() if those of its symbols are high"
NOTES_MAX = 1 << 20  # bytes, of all note segments
HEADERS_MAX = 1024

NOTE = "minicontainer"  # owner of the guests' note: type 1, with flags and number of processors (csrc/guests)
NOTE_TYPE = 1
WANTS_IRQCHIP, WANTS_USER64 = 1, 2
XEN, XEN_ELFNOTE_PHYS32_ENTRY = "Xen", 18  # Xen public/elfnote.h; Linux Documentation/arch/x86/pvh: docs


class Segment(NamedTuple):
    """A PT_LOAD (or other) entry of the program header table."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


class Elf(NamedTuple):
    """The headers of an ELF kernel."""

    entry: int
    segments: list[Segment]
    pvh: int | None
    flags: int
    cpus: int

    @property
    def end(self) -> int:
        """The end of the last segment in memory."""
        return max(s.paddr + s.memsz for s in self.segments)


def is_elf(kernel: Kernel, bits: int) -> bool:
    """Whether the file is an ELF file of 32 or 64 bits; what is neither counts as 64."""
    return kernel.head.startswith(MAGIC) and bits == bits_of(kernel)


def bits_of(kernel: Kernel) -> int:
    """32, or 64."""
    return 32 if kernel.head[4:5] == b"\x01" else 64


def parse(kernel: Kernel) -> Elf:
    """Reads and checks headers and notes. KernelError: the kernel cannot be loaded."""
    layout = HEADER[bits_of(kernel)]
    if len(kernel.head) < 16 + layout.size:
        raise kernel.error(f"its ELF header is cut off at {kernel.size} bytes")
    if kernel.head[4] not in (1, 2):
        raise kernel.error(f"is neither a 32-bit nor a 64-bit ELF file (class {kernel.head[4]})")
    if kernel.head[5] != 1:
        raise kernel.error("is big-endian: not for x86")
    kind, machine, _, entry, table, _, _, _, entsize, count = layout.unpack_from(kernel.head, 16)
    if machine != MACHINES[bits_of(kernel)]:
        raise kernel.error(f"is built for {NAMES.get(machine, f'machine {machine}')}, not for x86")
    segments = list(_segments(kernel, table, entsize, count))
    if any(s.type == PT_INTERP and not _names_no_loader(kernel, s) for s in segments):
        raise kernel.error("is a program for Linux, not a kernel: it wants a loader", "link it with -static -no-pie")
    if kind == ET_CORE:
        raise kernel.error("is a core dump (ELF type 4)")
    if kind != ET_EXEC:
        raise kernel.error(f"is no executable at fixed addresses (ELF type {kind})", "link it with -no-pie")
    loaded = [s for s in segments if s.type == PT_LOAD and s.memsz]
    if not loaded:
        raise kernel.error("has nothing to load (no PT_LOAD segment)")
    _no_overlap(kernel, loaded)
    pvh, flags, cpus = _notes(kernel, segments)
    return Elf(entry, loaded, pvh, flags, cpus)


def _names_no_loader(kernel: Kernel, segment: Segment) -> bool:
    """Whether the loader that a program asks for is none: Solo5's kernels name one that cannot exist."""
    return kernel.read(segment.offset, min(segment.filesz, 64), "its loader's name").startswith(NO_LOADER)


def _segments(kernel: Kernel, table: int, entsize: int, count: int) -> Iterator[Segment]:
    layout = PROGRAM[bits_of(kernel)]
    if count and entsize != layout.size:
        raise kernel.error(f"its program headers have {entsize} bytes each, not {layout.size}")
    if count > HEADERS_MAX:
        raise kernel.error(f"its program header table has {count} entries: at most {HEADERS_MAX} are read")
    raw = kernel.read(table, count * entsize, "its program header table")
    for fields in layout.iter_unpack(raw):
        if layout is PROGRAM[32]:
            kind, offset, vaddr, paddr, filesz, memsz, *_ = fields
        else:
            kind, _, offset, vaddr, paddr, filesz, memsz, _ = fields
        yield Segment(kind, offset, vaddr, paddr, filesz, memsz)


def _no_overlap(kernel: Kernel, segments: list[Segment]) -> None:
    """KernelError: two segments overlap."""
    ordered = sorted(segments, key=lambda s: s.paddr)
    for i, other in enumerate(ordered[1:]):
        one = ordered[i]
        if one.paddr + one.memsz > other.paddr:
            raise kernel.error(f"its segments at {one.paddr:#x} ({one.memsz} bytes) and {other.paddr:#x} overlap")


# ---- notes


def _notes(kernel: Kernel, segments: list[Segment]) -> tuple[int | None, int, int]:
    """(PVH entry, flags, processors) of the notes."""
    pvh, flags, cpus = None, 0, 1
    note_segments = [s for s in segments if s.type == PT_NOTE]
    size = sum(s.filesz for s in note_segments)
    if size > NOTES_MAX:
        raise kernel.error(f"has {size} bytes of notes: at most {NOTES_MAX} are read")
    for segment in note_segments:
        raw = kernel.read(segment.offset, segment.filesz, "a note segment")
        for owner, kind, content in notes(raw):
            if owner == XEN and kind == XEN_ELFNOTE_PHYS32_ENTRY and len(content) in (4, 8):
                pvh = int.from_bytes(content, "little")
            elif owner == NOTE and kind == NOTE_TYPE and len(content) == 8:
                flags, cpus = struct.unpack("<II", content)
    if cpus > CPUS_MAX:
        raise kernel.error(f"wants {cpus} processors: a machine has at most {CPUS_MAX}")
    return pvh, flags, max(1, cpus)


def notes(raw: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(owner, type, content) of each note; a truncated one at the end is ignored."""
    at = 0
    while at + 12 <= len(raw):
        namesz, descsz, kind = struct.unpack_from("<III", raw, at)
        name = at + 12
        content = name + -(-namesz // 4) * 4
        if content + descsz > len(raw):
            return
        owner = raw[name : name + namesz].rstrip(b"\0").decode("latin-1")
        yield owner, kind, raw[content : content + descsz]
        at = content + -(-descsz // 4) * 4


# ---- loading


class ElfFormat(Usual):
    """The format of ELF files that are entered at their entry point."""

    options = ("entry",)

    def __init__(self, bits: int) -> None:
        self.bits, self.name = bits, f"elf{bits}"
        self.modes = ("protected",) if bits == 32 else ("long", "user64")

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return is_elf(kernel, self.bits)

    def memory(self, kernel: Kernel) -> int:
        """As Format."""
        return memory_up_to(parse(kernel).end)

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
        """As Format."""
        headers = parse(kernel)
        default = "user64" if self.bits == 64 and headers.flags & WANTS_USER64 else self.modes[0]
        return load(kernel, memory, headers, options.mode or default, options.entry)


FORMATS = (ElfFormat(32), ElfFormat(64))


def load(kernel: Kernel, memory: GuestMemory, elf: Elf, mode: str, entry: int | None) -> Entry:
    """Copies the segments to their physical addresses. The rest of each segment (.bss) is zero: memory is new."""
    for segment in elf.segments:
        _load_segment(kernel, memory, segment)
    start = physical(elf.segments, elf.entry) if entry is None else entry
    if reason := entry_error(memory, mode, start):
        if entry is None:
            raise kernel.error(f"its entry {elf.entry:#x} {reason}")
        raise SpecError("entry", hex(start), reason)
    used = [(s.paddr, s.memsz) for s in elf.segments]
    return Entry(f"elf{bits_of(kernel)}", mode, start, {}, used, irqchip=bool(elf.flags & WANTS_IRQCHIP), cpus=elf.cpus)


def _load_segment(kernel: Kernel, memory: GuestMemory, s: Segment) -> None:
    if s.filesz > s.memsz:
        raise kernel.error(f"its segment at {s.paddr:#x} has {s.filesz} bytes in the file for {s.memsz} in memory")
    if s.filesz and s.offset + s.filesz > kernel.size:
        raise kernel.error(
            f"its segment at {s.paddr:#x} lies in the file at {s.offset:#x} to {s.offset + s.filesz:#x},"
            f" beyond its {kernel.size} bytes"
        )
    try:
        memory.offset(s.paddr, s.memsz)
    except GuestMemoryError:
        reason = f"its segment of {s.memsz} bytes at {s.paddr:#x} does not fit into memory ({memory.describe()})"
        raise kernel.error(reason, remedy(s.paddr, s.memsz, LOWER)) from None
    memory.read_from(kernel, s.paddr, s.filesz, s.offset, f"its segment at {s.paddr:#x}")


def physical(segments: list[Segment], address: int) -> int:
    """The physical address of an entry point, which may be a virtual address."""
    if any(s.paddr <= address < s.paddr + s.memsz for s in segments):
        return address
    for s in segments:
        if s.vaddr <= address < s.vaddr + s.memsz:
            return address - s.vaddr + s.paddr
    return address

"""ELF kernels (System V ABI, "Object Files"; elf(5)), and their notes: the PVH entry, and requests for features."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.kernel import CPUS_MAX, Entry, Kernel, entry_error
from minicontainer.kvm.memory import GuestMemory, GuestMemoryError

ET_EXEC = 2
PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4
MACHINES = {"elf32": 3, "elf64": 62}  # EM_386, EM_X86_64
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
HEADER = {"elf32": struct.Struct("<HHIIIIIHHH"), "elf64": struct.Struct("<HHIQQQIHHH")}  # from e_type to e_phnum
PROGRAM = {"elf32": struct.Struct("<IIIIIIII"), "elf64": struct.Struct("<IIQQQQQQ")}
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


def parse(kernel: Kernel) -> Elf:
    """Reads and checks headers and notes. KernelError: the kernel cannot be loaded."""
    layout = HEADER[kernel.kind]
    if len(kernel.head) < 16 + layout.size:
        raise kernel.error(f"its ELF header is cut off at {kernel.size} bytes")
    if kernel.head[4] not in (1, 2):
        raise kernel.error(f"is neither a 32-bit nor a 64-bit ELF file (class {kernel.head[4]})")
    if kernel.head[5] != 1:
        raise kernel.error("is big-endian: not for x86")
    kind, machine, _, entry, table, _, _, _, entsize, count = layout.unpack_from(kernel.head, 16)
    if machine != MACHINES[kernel.kind]:
        raise kernel.error(f"is built for {NAMES.get(machine, f'machine {machine}')}, not for x86")
    segments = list(_segments(kernel, table, entsize, count))
    if any(s.type == PT_INTERP for s in segments):
        raise kernel.error("is a program for Linux, not a kernel: it wants a loader")
    if kind != ET_EXEC:
        raise kernel.error(f"is no executable at fixed addresses (ELF type {kind})", "link it with -no-pie")
    loaded = [s for s in segments if s.type == PT_LOAD and s.memsz]
    if not loaded:
        raise kernel.error("has nothing to load (no PT_LOAD segment)")
    _no_overlap(kernel, loaded)
    pvh, flags, cpus = _notes(kernel, segments)
    return Elf(entry, loaded, pvh, flags, cpus)


def _segments(kernel: Kernel, table: int, entsize: int, count: int) -> Iterator[Segment]:
    layout = PROGRAM[kernel.kind]
    if count and entsize != layout.size:
        raise kernel.error(f"its program headers have {entsize} bytes each, not {layout.size}")
    if count > HEADERS_MAX:
        raise kernel.error(f"its program header table has {count} entries: at most {HEADERS_MAX} are read")
    raw = kernel.read(table, count * entsize, "its program header table")
    for fields in layout.iter_unpack(raw):
        if kernel.kind == "elf32":
            kind, offset, vaddr, paddr, filesz, memsz, *_ = fields
        else:
            kind, _, offset, vaddr, paddr, filesz, memsz, _ = fields
        yield Segment(kind, offset, vaddr, paddr, filesz, memsz)


def _no_overlap(kernel: Kernel, segments: list[Segment]) -> None:
    """KernelError: two segments overlap."""
    ordered = sorted(segments, key=lambda s: s.paddr)
    for one, other in pairwise(ordered):
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
    return Entry(kernel.kind, mode, start, {}, used, irqchip=bool(elf.flags & WANTS_IRQCHIP), cpus=elf.cpus)


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
        raise kernel.error(
            f"its segment of {s.memsz} bytes at {s.paddr:#x} does not fit into memory ({memory.describe()})", "--memory"
        ) from None
    with memory.view(s.paddr, s.filesz) as view:
        kernel.read_into(view, s.offset, f"its segment at {s.paddr:#x}")


def physical(segments: list[Segment], address: int) -> int:
    """The physical address of an entry point, which may be a virtual address."""
    if any(s.paddr <= address < s.paddr + s.memsz for s in segments):
        return address
    for s in segments:
        if s.vaddr <= address < s.vaddr + s.memsz:
            return address - s.vaddr + s.paddr
    return address

"""Hand-made valid kernel images for tests of the loaders, which change single fields."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from minicontainer.kvm.boot.kernel import Entry
from minicontainer.kvm.memory import GuestMemory

Load = Callable[..., tuple[Entry, GuestMemory]]  # the fixture `load` of tests/unit
MIB, GIB = 1 << 20, 1 << 30

PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4
EM_386, EM_X86_64 = 3, 62
HEADER = {32: struct.Struct("<16sHHIIIIIHHHHHH"), 64: struct.Struct("<16sHHIQQQIHHHHHH")}
PROGRAM = {32: struct.Struct("<8I"), 64: struct.Struct("<IIQQQQQQ")}

# Offsets of fields in the files of elf(), for `changed`. Those of a program header count from its own begin.
TYPE, MACHINE, ENTRY = 16, 18, 24
TABLE, ENTSIZE, COUNT = {32: 28, 64: 32}, {32: 42, 64: 54}, {32: 44, 64: 56}
FIRST = {32: 52, 64: 64}
OFFSET, PADDR, FILESZ, MEMSZ = {32: 4, 64: 8}, {32: 12, 64: 24}, {32: 16, 64: 32}, {32: 20, 64: 40}


class Segment(NamedTuple):
    """``content`` in the file; The numbers need not be consistent."""

    content: bytes
    paddr: int
    memsz: int | None = None
    vaddr: int | None = None
    type: int = PT_LOAD
    offset: int | None = None


def elf(bits: int, segments: Sequence[Segment], entry: int, *, machine: int | None = None, kind: int = 2) -> bytes:
    """An ELF file: header, program headers, and the segments' contents behind each other."""
    header, program = HEADER[bits], PROGRAM[bits]
    at = header.size + program.size * len(segments)
    table, contents = b"", b""
    for s in segments:
        offset = at + len(contents) if s.offset is None else s.offset
        size = len(s.content)
        memsz, vaddr = size if s.memsz is None else s.memsz, s.paddr if s.vaddr is None else s.vaddr
        if bits == 32:
            table += program.pack(s.type, offset, vaddr, s.paddr, size, memsz, 7, 1)
        else:
            table += program.pack(s.type, 7, offset, vaddr, s.paddr, size, memsz, 1)
        contents += s.content
    machine = (EM_386 if bits == 32 else EM_X86_64) if machine is None else machine
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    sizes = header.size, program.size, len(segments), 0, 0, 0
    return header.pack(ident, kind, machine, 1, entry, header.size, 0, 0, *sizes) + table + contents


def note(owner: str, kind: int, content: bytes) -> Segment:
    """A segment of one note."""
    name = owner.encode() + b"\0"
    raw = struct.pack("<III", len(name), len(content), kind)
    raw += name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)
    return Segment(raw, 0, type=PT_NOTE)


CODE = b"\x90\xf4 code of a kernel"
AT = 0x200000


def pvh_note(entry: int) -> Segment:
    """The PVH entry point (XEN_ELFNOTE_PHYS32_ENTRY)."""
    return note("Xen", 18, struct.pack("<I", entry))


def own_note(flags: int, cpus: int) -> Segment:
    """A request note of a bundled guest (csrc/guests/guest.h)."""
    return note("minicontainer", 1, struct.pack("<II", flags, cpus))


def simple(bits: int = 64) -> bytes:
    """CODE at AT with a page of zeros behind it; entered at its second byte."""
    return elf(bits, [Segment(CODE, AT, len(CODE) + 0x1000)], AT + 1)


def pvh(bits: int = 64) -> bytes:
    """The same, with a note of its PVH entry, the third byte."""
    return elf(bits, [Segment(CODE, AT, len(CODE) + 0x1000), pvh_note(AT + 2)], AT + 1)


# ---- bzImages

INITRD_MAX = 0x1000000 - 1
COMMAND_LINE_MAX = 255
PREFERRED, INIT_SIZE = 0x400000, 0x100000
SETUP_SIZE, LOADED_SIZE = 1024, 2048  # of what bzimage makes, without its payload


def bzimage(payload: bytes = b"") -> bytes:
    """One sector of set-up code; then what is loaded, of which ``payload`` is the end (Linux boot.rst)."""
    head = bytearray(SETUP_SIZE)
    loaded = -(-(LOADED_SIZE + len(payload)) // 16) * 16
    for offset, layout, value in (
        (0x1F1, "<B", 1),  # setup_sects
        (0x1F4, "<I", loaded // 16),  # syssize
        (0x1FE, "<H", 0xAA55),  # boot_flag
        (0x200, "<H", 0x66EB),  # jump
        (0x202, "<4s", b"HdrS"),
        (0x206, "<H", 0x20F),  # version
        (0x211, "<B", 1),  # loadflags: LOADED_HIGH
        (0x214, "<I", 0x100000),  # code32_start
        (0x22C, "<I", INITRD_MAX),
        (0x236, "<H", 1),  # xloadflags: XLF_KERNEL_64
        (0x238, "<I", COMMAND_LINE_MAX),
        (0x248, "<I", LOADED_SIZE),  # payload_offset
        (0x24C, "<I", len(payload)),
        (0x258, "<Q", PREFERRED),
        (0x260, "<I", INIT_SIZE),
    ):
        struct.pack_into(layout, head, offset, value)
    return bytes(head) + (b"\xcc" * LOADED_SIZE + payload).ljust(loaded, b"\0")


def with_size(packed: bytes, content: bytes) -> bytes:
    """As Linux's build appends it (scripts/Makefile.lib, size_append)."""
    return packed + struct.pack("<I", len(content))


def gzip(content: bytes) -> bytes:
    """Whose own last word is the size."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(content) + packer.flush()


def lz4_literals(content: bytes) -> bytes:
    """An LZ4 block that packs nothing (lz4_Block_format.md: a sequence of literals alone)."""
    size = len(content) - 15
    return b"\xf0" + b"\xff" * (size // 255) + bytes([size % 255]) + content


def lz4(content: bytes) -> bytes:
    """A legacy frame (lz4_Frame_format.md) with blocks of 8 MiB."""
    blocks = [lz4_literals(content[at : at + (8 << 20)]) for at in range(0, len(content), 8 << 20)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(b)) + b for b in blocks)


def zstd(content: bytes) -> bytes:
    """A frame of blocks that pack nothing (RFC 8878, 3.1.1): a single segment, with its size in four bytes."""
    parts = [content[at : at + (128 << 10)] for at in range(0, len(content), 128 << 10)]
    heads = [(len(part) << 3 | (i == len(parts) - 1)).to_bytes(3, "little") for i, part in enumerate(parts)]
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(content))
    return frame + b"".join(head + part for head, part in zip(heads, parts, strict=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip,
    "bzip2": lambda content: with_size(bz2.compress(content), content),
    "xz": lambda content: with_size(lzma.compress(content, check=lzma.CHECK_CRC32), content),
    "lzma": lambda content: with_size(lzma.compress(content, lzma.FORMAT_ALONE), content),
    "lz4": lambda content: with_size(lz4(content), content),
    "zstd": lambda content: with_size(zstd(content), content),
}


# ---- multiboot


def multiboot(flags: int = 0, *addresses: int, head: bytes = b"") -> bytes:
    """A header of version 1 behind ``head``, then CODE. With ``addresses`` (header, load, load end, bss end, entry)."""
    flags |= (1 << 16) * bool(addresses)
    return (
        head
        + struct.pack(f"<III{len(addresses)}I", 0x1BADB002, flags, -(0x1BADB002 + flags) % 2**32, *addresses)
        + CODE
    )


def multiboot2(*tags: tuple[int, int, bytes], architecture: int = 0, end: bool = True) -> bytes:
    """A header of version 2 with these tags (type, flags, content), then CODE."""
    raw = b""
    for kind, flags, content in (*tags, *[(0, 0, b"")] * end):
        raw += struct.pack("<HHI", kind, flags, 8 + len(content)) + content + bytes(-len(content) % 8)
    size = 16 + len(raw)
    return (
        struct.pack("<IIII", 0xE85250D6, architecture, size, -(0xE85250D6 + architecture + size) % 2**32) + raw + CODE
    )


def elf_with(header: bytes, bits: int = 32) -> bytes:
    """An ELF file whose first segment, at AT, is a header that ends with CODE; entered there."""
    content = bytes(-(HEADER[bits].size + PROGRAM[bits].size) % 8) + header
    return elf(bits, [Segment(content, AT, len(content) + 0x1000)], AT + len(content) - len(CODE))


# ---- others


def boot_sector(code: bytes = CODE) -> bytes:
    """512 bytes with the signature at their end."""
    return code.ljust(510, b"\0") + b"\x55\xaa"


def changed(image: bytes, offset: int, layout: str, value: int) -> bytes:
    """The image with one field set."""
    raw = bytearray(image)
    struct.pack_into(layout, raw, offset, value)
    return bytes(raw)


def sparse(path: Path, size: int, head: bytes = b"") -> Path:
    """A file of zeros that takes no room, but for its begin."""
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def one_line(error: Exception, *words: str) -> bool:
    """Whether the message is one printable line that contains every word."""
    text = str(error)
    return text.isprintable() and all(word in text for word in words)

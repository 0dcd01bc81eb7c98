"""ELF files of 64 bits by their sections (System V ABI, "Object Files"; elf(5)): modules, and libraries."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
PROGRAM = struct.Struct("<IIQQQQQQ")
SHT_NULL, SHT_RELA, SHT_NOBITS, SHT_REL, SHT_DYNSYM = 0, 4, 8, 9, 11
SHF_ALLOC = 2
EM_X86_64 = 62


class Header(NamedTuple):
    """The fields of an ELF header, as the ABI names them."""

    e_ident: bytes
    e_type: int
    e_machine: int
    e_version: int
    e_entry: int
    e_phoff: int
    e_shoff: int
    e_flags: int
    e_ehsize: int
    e_phentsize: int
    e_phnum: int
    e_shentsize: int
    e_shnum: int
    e_shstrndx: int


class Section(NamedTuple):
    """An entry of the section header table, as the ABI names its fields; its name, and where it lies in the file."""

    sh_name: int
    sh_type: int
    sh_flags: int
    sh_addr: int
    sh_offset: int
    sh_size: int
    sh_link: int
    sh_info: int
    sh_addralign: int
    sh_entsize: int
    name: bytes = b""

    @property
    def in_file(self) -> slice:
        """Its bytes in the file."""
        size = 0 if self.sh_type in (SHT_NULL, SHT_NOBITS) else self.sh_size
        return slice(self.sh_offset, self.sh_offset + size)


class Symbol(NamedTuple):
    """A symbol of a library: its section, and where it lies in the file."""

    section: Section
    offset: int
    size: int


def header_of(content: bytes | mmap.mmap) -> Header:
    """The header. ValueError: it is no ELF file of 64 bits for x86."""
    if len(content) < HEADER.size or content[: len(IDENT)] != IDENT:
        raise ValueError("is no ELF file of 64 bits")
    header = Header(*HEADER.unpack_from(content))
    if header.e_machine != EM_X86_64:
        raise ValueError(f"is built for machine {header.e_machine}, not for x86_64")
    return header


def sections_of(content: bytes | mmap.mmap, header: Header) -> list[Section]:
    """All sections, in order, so that the index of each is that of the file. ValueError: the file is damaged."""
    end = header.e_shoff + header.e_shnum * SECTION.size
    if not header.e_shnum or header.e_shentsize != SECTION.size or end > len(content):
        raise ValueError("has no whole table of sections")
    if header.e_shstrndx >= header.e_shnum:
        raise ValueError("does not name its sections")
    found = [Section(*fields) for fields in SECTION.iter_unpack(content[header.e_shoff : end])]
    for section in found:
        if section.in_file.stop > len(content):
            raise ValueError("is cut off in a section")
    names = content[found[header.e_shstrndx].in_file]
    return [section._replace(name=text_at(names, section.sh_name)) for section in found]


def text_at(texts: bytes, at: int) -> bytes:
    """The text at an offset of a string table; empty beyond its end."""
    end = texts.find(b"\0", at)
    return texts[at:end] if end >= 0 else b""


def symbols_of(content: bytes | mmap.mmap, sections: list[Section]) -> dict[str, Symbol]:
    """The symbols that a library exports and defines. ValueError: it is damaged."""
    found: dict[str, Symbol] = {}
    for table in sections:
        if table.sh_type != SHT_DYNSYM:
            continue
        if table.sh_link >= len(sections):
            raise ValueError("does not name its symbols")
        names, raw = content[sections[table.sh_link].in_file], content[table.in_file]
        for name, _, _, index, value, size in SYMBOL.iter_unpack(raw[: len(raw) // SYMBOL.size * SYMBOL.size]):
            if not 0 < index < len(sections):
                continue
            section = sections[index]
            offset = section.sh_offset + value - section.sh_addr
            if section.in_file.start <= offset and offset + size <= section.in_file.stop:
                found[text_at(names, name).decode("latin-1")] = Symbol(section, offset, size)
    return found

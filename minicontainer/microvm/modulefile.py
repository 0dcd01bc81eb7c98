"""A file with a module of Linux: unpacked, read, and made smaller for the guest that loads it.

Linux unpacks modules itself only where it has CONFIG_MODULE_DECOMPRESS, so they are unpacked here. What no guest needs
is left out, since it takes a share of the time in which a module is loaded: the signature (a guest has no lockdown; a
kernel with CONFIG_MODULE_SIG_FORCE gets modules as they are), BTF and debug information.
"""

from __future__ import annotations

import struct

from minicontainer.errors import UnsupportedError, as_step_error
from minicontainer.microvm import sections as elf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
MOST = 64 << 20  # bytes of a module, unpacked: Debian's largest have 8 MiB
LZMA_MEMORY = 128 << 20
# Linux include/linux/module_signature.h: struct module_signature, then this, at the end of the file.
SIGNED = b"~Module signature appended~\n"
SIGNATURE = struct.Struct(">BBBBB3xI")
DROPPED = (b".BTF", b".debug_", b".rela.debug_", b".comment", b".gnu_debuglink", b".note.GNU-stack")
REMEDY = "install the kernel's package again"


def name_of(path: str) -> str | None:
    """The name by which Linux knows the module in a file (``virtio_rng`` of virtio-rng.ko.xz); None: it is none."""
    file = path.rpartition("/")[2]
    for suffix in SUFFIXES:
        if file.endswith(suffix) and len(file) > len(suffix):
            return file[: -len(suffix)].replace("-", "_")
    return None


def read(path: str) -> bytes:
    """The module in a file, unpacked. UnsupportedError: it is damaged; OSError of open(2)."""
    try:
        with open(path, "rb", buffering=0) as file:
            raw = file.read(MOST + 1)
    except OSError as e:
        raise as_step_error(e, f"read({path!r})") from None
    if len(raw) > MOST:
        raise UnsupportedError("module", path, f"has more than {MOST >> 20} MiB", REMEDY)
    content = _unpacked(path, raw)
    try:
        elf.header_of(content)
    except ValueError as e:
        raise UnsupportedError("module", path, str(e), REMEDY) from None
    return content


def _unpacked(path: str, raw: bytes) -> bytes:
    for magic, unpack in PACKED.items():
        if raw.startswith(magic):
            content = unpack(raw)
            if content is None:
                raise UnsupportedError("module", path, f"is packed, and damaged or beyond {MOST >> 20} MiB", REMEDY)
            return content
    return raw


def _xz(raw: bytes) -> bytes | None:
    import lzma

    unpacker = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    try:
        content = unpacker.decompress(raw, MOST)
    except (lzma.LZMAError, EOFError):
        return None
    return content if unpacker.eof else None


def _gzip(raw: bytes) -> bytes | None:
    import zlib

    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(raw, MOST)
    except zlib.error:
        return None
    return content if unpacker.eof else None


def _zstd(raw: bytes) -> bytes | None:
    from minicontainer.kvm.boot import zstd

    size = zstd_size(raw)
    if size is None or size > MOST:
        return None
    content = zstd.unpack(raw, size)
    if content is None:
        return None
    with content:
        return content[:size]


PACKED = {b"\xfd7zXZ\0": _xz, b"\x28\xb5\x2f\xfd": _zstd, b"\x1f\x8b": _gzip}


def zstd_size(raw: bytes) -> int | None:
    """The size that a frame says it unpacks to (RFC 8878, 3.1.1.1). None: it says none; zstd(1) leaves it out only
    where it packs a stream."""
    descriptor = raw[4] if len(raw) > 4 else 0
    is_single = descriptor >> 5 & 1
    at = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    length = (is_single, 2, 4, 8)[descriptor >> 6]
    if not length or at + length > len(raw):
        return None
    return int.from_bytes(raw[at : at + length], "little") + 256 * (length == 2)


# ---- what is in a module


def information(content: bytes) -> dict[str, str]:
    """The fields of a module's section .modinfo; of a field that is repeated, the last. Empty: it has no such
    section."""
    try:
        sections = elf.sections_of(content, elf.header_of(content))
    except ValueError:
        return {}
    raw = b"\0".join(content[section.in_file] for section in sections if section.name == b".modinfo")
    fields = (text.decode("utf-8", "replace").partition("=") for text in raw.split(b"\0") if text)
    return {key: value for key, _, value in fields}


def stripped(content: bytes) -> bytes:
    """The module without its signature, and without what Linux does not need to run it. One whose sections cannot be
    read is left as it is."""
    content = unsigned(content)
    try:
        header = elf.header_of(content)
        sections = elf.sections_of(content, header)
    except ValueError:
        return content
    whole = sum(section.in_file.stop - section.in_file.start for section in sections) <= len(content)
    if not whole or not any(map(_is_dropped, sections)):
        return content
    parts, table, at = [content[: elf.HEADER.size]], [], elf.HEADER.size
    for section in sections:
        if _is_dropped(section):
            section = elf.Section(0, elf.SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0)
        elif section.sh_type not in (elf.SHT_NULL, elf.SHT_NOBITS):
            gap = _gap(at, section.sh_addralign)
            parts += [bytes(gap), content[section.in_file]]
            section, at = section._replace(sh_offset=at + gap), at + gap + section.sh_size
        table.append(elf.SECTION.pack(*section[: len(elf.Section._fields) - 1]))
    gap = _gap(at, 8)
    changed = header._replace(e_shoff=at + gap)
    return b"".join([elf.HEADER.pack(*changed), *parts[1:], bytes(gap), *table])


def _gap(at: int, alignment: int) -> int:
    """The bytes up to the next multiple of an alignment; a damaged one counts as none."""
    return -at % alignment if 0 < alignment <= 4096 else 0


def _is_dropped(section: elf.Section) -> bool:
    """Indices of sections stay what they are, since symbols and relocations use them: a section that goes is one of
    type elf.SHT_NULL, which Linux passes over (kernel/module/main.c, elf_validity_cache_sechdrs)."""
    return not section.sh_flags & elf.SHF_ALLOC and section.name.startswith(DROPPED)


def unsigned(content: bytes) -> bytes:
    """The module without the signature that is appended to it."""
    end = len(content) - len(SIGNED) - SIGNATURE.size
    if end < 0 or not content.endswith(SIGNED):
        return content
    *_, signer, key, size = SIGNATURE.unpack_from(content, end)
    size += signer + key
    return content[: end - size] if size <= end else content


def imports(content: bytes) -> Iterator[str]:
    """The names of the modules that this one uses symbols of, as modpost has written them into it."""
    yield from (name for name in information(content).get("depends", "").replace("-", "_").split(",") if name)

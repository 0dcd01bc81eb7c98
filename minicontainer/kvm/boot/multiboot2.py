"""Multiboot2 (Multiboot2 Specification 2.0): as multiboot, with tags in header and information."""

from __future__ import annotations

import struct

from minicontainer.kvm.boot import modules, pc
from minicontainer.kvm.boot.modules import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.boot.modules import Module
    from minicontainer.kvm.memory import GuestMemory

SEARCHED = 32768  # bytes of the file in which the header is
HEADER = struct.Struct("<IIII")  # magic, architecture, length, checksum
TAG = struct.Struct("<HHI")  # type, flags, size
I386 = 0
OPTIONAL = 1  # flag of a tag: a loader may not know it
# Types of tags in the header. Those of EFI count for loaders of EFI; a console and alignment are always as asked. The
# frame buffer is "a recommended mode" (3.1.10): a screen of text, of which the information tells, does for it.
END, REQUEST, ADDRESSES, ENTRY, CONSOLE, FRAMEBUFFER, ALIGNMENT, BOOT_SERVICES, EFI32, EFI64, RELOCATABLE = range(11)
FINE = {CONSOLE, ALIGNMENT, EFI32, EFI64, RELOCATABLE}
NAMES = {FRAMEBUFFER: "a frame buffer", BOOT_SERVICES: "EFI's boot services"}
# Types of tags in the information.
COMMAND_LINE, LOADER_NAME, MODULE, SIZES, MAP, SCREEN = 1, 2, 3, 4, 6, 8
GIVEN = {COMMAND_LINE, LOADER_NAME, MODULE, SIZES, MAP}
RANGE = struct.Struct("<QQII")


class Multiboot2(modules.Version):
    """The format."""

    name, modes = "multiboot2", ("multiboot2",)
    magic, entry_magic = 0xE85250D6, 0x36D76289
    header, searched, alignment = HEADER, SEARCHED, 8

    def parse(self, kernel: Kernel, at: int, *, screen: bool) -> tuple[Place | None, int | None]:
        """As Version."""
        _, architecture, _, _ = HEADER.unpack_from(kernel.head, at)
        if architecture != I386:
            raise kernel.error(f"its multiboot2 header is for another processor (architecture {architecture})")
        fields: tuple[int, ...] | None = None
        entry: int | None = None
        for kind, flags, content in _tags(kernel, at):
            if kind == ADDRESSES and len(content) >= 16:
                fields = struct.unpack_from("<IIII", content)
            elif kind == ENTRY and len(content) >= 4:
                entry = int.from_bytes(content[:4], "little")
            elif kind == REQUEST:
                _check_request(kernel, flags, content, GIVEN | {SCREEN} if screen else GIVEN)
            elif kind not in FINE and not flags & OPTIONAL and not (screen and kind == FRAMEBUFFER):
                what = NAMES.get(kind, f"what this loader does not know (tag {kind} of {len(content)} bytes)")
                reason = f"its multiboot2 header asks for {what}, which a machine here does not have"
                raise kernel.error(reason, "--screen has text" if kind == FRAMEBUFFER else "")
        if fields is None:
            return None, entry
        if entry is None:
            raise kernel.error("its multiboot2 header has addresses, and no entry")
        header_address, load, load_end, bss_end = fields
        return Place(at, header_address, load, load_end, bss_end, entry), None

    def write_info(self, memory: GuestMemory, append: str, loaded: list[Module], *, screen: bool) -> None:
        """As Version."""
        text = pc.command_line(append, pc.COMMAND_LINE_MAX)
        ranges = b"".join(RANGE.pack(*r, 0) for r in pc.memory_map(memory))
        tags = _tag(COMMAND_LINE, text) + _tag(LOADER_NAME, modules.LOADER + b"\0")
        for module in loaded:
            name = module.text.encode("utf-8", "surrogateescape") + b"\0"
            tags += _tag(MODULE, struct.pack("<II", module.start, module.end) + name)
        tags += _tag(SIZES, struct.pack("<II", *modules.sizes(memory)))
        if screen:
            tags += _tag(SCREEN, struct.pack("<QIIIBBxx", *modules.framebuffer()))
        tags += _tag(MAP, struct.pack("<II", RANGE.size, 0) + ranges) + _tag(END, b"")
        pc.check_info(8 + len(tags))
        memory.write(pc.INFO, struct.pack("<II", 8 + len(tags), 0) + tags)


FORMATS = (Multiboot2(),)


def _tags(kernel: Kernel, at: int) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, content) of each tag of the header."""
    _, _, length, _ = HEADER.unpack_from(kernel.head, at)
    if not HEADER.size + TAG.size <= length <= SEARCHED:
        raise kernel.error(f"its multiboot2 header has {length} bytes")
    raw = kernel.read(at, length, "its multiboot2 header")
    at = HEADER.size
    while at + TAG.size <= length:
        kind, flags, size = TAG.unpack_from(raw, at)
        if kind == END:
            return
        if size < TAG.size or at + size > length:
            raise kernel.error(f"its multiboot2 header has a tag of {size} bytes at {at:#x} of {length:#x}")
        yield kind, flags, raw[at + TAG.size : at + size]
        at += -(-size // 8) * 8
    raise kernel.error("its multiboot2 header has no end")


def _check_request(kernel: Kernel, flags: int, content: bytes, given: set[int]) -> None:
    asked = {kind for (kind,) in struct.iter_unpack("<I", content[: len(content) // 4 * 4])}
    if asked - given and not flags & OPTIONAL:
        kinds = ", ".join(map(str, sorted(asked - given)))
        raise kernel.error(f"its multiboot2 header asks for information that is not given here (type {kinds})")


def _tag(kind: int, content: bytes) -> bytes:
    size = 8 + len(content)
    return struct.pack("<II", kind, size) + content + bytes(-size % 8)

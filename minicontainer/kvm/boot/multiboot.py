"""Multiboot (Multiboot Specification 0.6.96): 32-bit, no paging; EAX is a magic number, EBX points to information."""

from __future__ import annotations

import struct

from minicontainer.kvm.boot import modules, pc
from minicontainer.kvm.boot.modules import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.boot.modules import Module
    from minicontainer.kvm.memory import GuestMemory

HEADER = struct.Struct("<III")  # magic, flags, checksum
ADDRESSES = struct.Struct("<IIIII")  # header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr
# Flags of the header. The video mode that VIDEO asks for is not set, as by QEMU; the information tells the kernel so,
# or that there is a screen of text.
PAGE_ALIGN, MEMORY_INFO, VIDEO, HAS_ADDRESSES, REQUIRED = 1, 2, 4, 1 << 16, 0xFFFF
INFO = struct.Struct("<III4xIII16xII12xI20xQIIIBB10x")  # struct multiboot_info: 120 bytes
HAS_MEMORY, HAS_COMMAND_LINE, HAS_MODULES, HAS_MAP, HAS_LOADER = 1, 1 << 2, 1 << 3, 1 << 6, 1 << 9
HAS_FRAMEBUFFER = 1 << 12
MODULE = struct.Struct("<IIII")
RANGE = struct.Struct("<IQQI")  # the size that comes first does not count itself


class Multiboot(modules.Version):
    """The format."""

    name, modes = "multiboot", ("multiboot",)
    magic, entry_magic = 0x1BADB002, 0x2BADB002
    header, searched, alignment = HEADER, 8192, 4

    def parse(self, kernel: Kernel, at: int, *, screen: bool) -> tuple[Place | None, int | None]:
        """As Version."""
        _, flags, _ = HEADER.unpack_from(kernel.head, at)
        unknown = flags & REQUIRED & ~(PAGE_ALIGN | MEMORY_INFO | VIDEO)
        if unknown:
            raise kernel.error(f"asks its loader for what multiboot does not have (flags {unknown:#x})")
        if not flags & HAS_ADDRESSES:
            return None, None
        fields = ADDRESSES.unpack(kernel.read(at + HEADER.size, ADDRESSES.size, "its multiboot header"))
        return Place(at, *fields), None

    def write_info(self, memory: GuestMemory, append: str, loaded: list[Module], *, screen: bool) -> None:
        """As Version."""
        command_line, _ = pc.write_command_line(memory, append, pc.COMMAND_LINE_MAX)
        ranges = b"".join(RANGE.pack(RANGE.size - 4, *r) for r in pc.memory_map(memory))
        ranges_at = pc.INFO + INFO.size
        listed = ranges_at + len(ranges)
        name = listed + MODULE.size * len(loaded)
        table, texts = b"", modules.LOADER + b"\0"
        for module in loaded:
            table += MODULE.pack(module.start, module.end, name + len(texts), 0)
            texts += module.text.encode("utf-8", "surrogateescape") + b"\0"
        pc.check_info(name + len(texts) - pc.INFO)
        flags = HAS_MEMORY | HAS_COMMAND_LINE | HAS_MODULES | HAS_MAP | HAS_LOADER | (HAS_FRAMEBUFFER if screen else 0)
        sizes = modules.sizes(memory)
        shown = modules.framebuffer() if screen else (0,) * 6
        info = INFO.pack(flags, *sizes, command_line, len(loaded), listed, len(ranges), ranges_at, name, *shown)
        memory.write(pc.INFO, info + ranges + table + texts)


FORMATS = (Multiboot(),)

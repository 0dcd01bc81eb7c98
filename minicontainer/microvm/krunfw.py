"""The Linux kernel in libkrunfw, the library by which libkrun gets its kernel.

``KERNEL_BUNDLE`` is the kernel as it is in memory, up to its .bss (libkrunfw, bin2cbundle.py). Where it goes and where
it is entered is nowhere but in the code of ``krunfw_get_kernel(size_t *load, size_t *entry, size_t *size)``, which
stores three constants. That code is read here, never run: a library that somebody names would run as its caller, which
may be root. Compilers write the stores as MOV r/m64, imm32 (Intel SDM volume 2, "MOV"); a library in which they
are written otherwise is refused. Before libkrunfw 5 there was no entry: it is the first byte.

Such a kernel has no modules. Most have no ACPI: they learn of devices by their command line, and of processors and
interrupts by an MP table. Upstream's has no initramfs either (CONFIG_BLK_DEV_INITRD).
"""

from __future__ import annotations

import mmap

from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.microvm import kernelimage
from minicontainer.microvm import sections as elf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

BUNDLE, FUNCTION = "KERNEL_BUNDLE", "krunfw_get_kernel"
ET_DYN, ET_EXEC, PT_LOAD, RWX = 3, 2, 1, 7
PAGE, ROUNDING = 4096, 65536
CODE_MAX = 4096
BSS = 16 << 20  # kept free behind the image for .bss, whose size the library does not say


class Bundle(NamedTuple):
    """``offset`` and ``size`` of the image in the library; addresses are physical."""

    offset: int
    size: int
    load: int
    entry: int
    release: str


def is_library(file: Kernel) -> bool:
    """Whether a file is an ELF library, which no kernel is."""
    return file.head[:6] == elf.IDENT and file.head[16:18] == ET_DYN.to_bytes(2, "little")


def find(file: Kernel) -> Bundle:
    """The kernel in a library. KernelError: it has none, or is of another form."""
    with mmap.mmap(file.fd, file.size, access=mmap.ACCESS_READ) as content:
        try:
            symbols = elf.symbols_of(content, elf.sections_of(content, elf.header_of(content)))
            if BUNDLE not in symbols or FUNCTION not in symbols:
                raise ValueError(f"is a library without a kernel: it has no {BUNDLE} and {FUNCTION}, as libkrunfw has")
            bundle, function = symbols[BUNDLE], symbols[FUNCTION]
            code = content[function.offset : function.offset + min(function.size, CODE_MAX)]
            size, load, entry = _places(bundle.size, list(stores(code)))
            end = min(bundle.offset + size, bundle.section.in_file.stop)  # sizes are rounded up, beyond the last byte
            image = content[bundle.offset : end]
            release = kernelimage.banner(image)
            if not release:
                raise ValueError("holds no kernel that says of which release of Linux it is")
            return Bundle(bundle.offset, len(image), load, entry, release)
        except ValueError as e:
            raise file.error(str(e)) from None


def stores(code: bytes) -> Iterator[int]:
    """The constants that a function stores, in order: REX.W C7 /0 imm32, to the address in a register."""
    at = 0
    while at + 7 <= len(code):
        rex, opcode, modrm = code[at : at + 3]
        if rex in (0x48, 0x49) and opcode == 0xC7 and modrm < 8 and modrm not in (4, 5):
            yield int.from_bytes(code[at + 3 : at + 7], "little")
            at += 7
        else:
            at += 1


def _places(symbol_size: int, constants: list[int]) -> tuple[int, int, int]:
    """(size, load, entry) of what krunfw_get_kernel stores, whatever the order of the stores. ValueError."""
    content = symbol_size - 1  # a C string, with its NUL
    size = next((c for c in (content, -(-content // ROUNDING) * ROUNDING) if c in constants), 0)
    if size <= 0 or len(constants) not in (2, 3):
        words = " ".join(map(hex, constants))
        raise ValueError(f"its {FUNCTION} is not of a known form: it stores {words or 'nothing'}")
    others = list(constants)
    others.remove(size)
    load, entry = min(others), max(others)
    if load % PAGE or not load <= entry < load + size:
        raise ValueError(f"its kernel of {size:#x} bytes at {load:#x} is entered at {entry:#x}")
    return size, load, entry


def vmlinux_header(bundle: Bundle) -> bytes:
    """The first page of an ELF file with the image as its one segment, which follows; for mode linux64."""
    header = elf.Header(
        elf.IDENT + b"\x01" + bytes(9), ET_EXEC, elf.EM_X86_64, 1, bundle.entry, elf.HEADER.size, 0, 0,
        elf.HEADER.size, elf.PROGRAM.size, 1, 0, 0, 0,
    )  # fmt: skip
    segment = elf.PROGRAM.pack(PT_LOAD, RWX, PAGE, bundle.load, bundle.load, bundle.size, bundle.size + BSS, PAGE)
    return (elf.HEADER.pack(*header) + segment).ljust(PAGE, b"\0")

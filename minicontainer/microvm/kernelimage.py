"""What is in a kernel's image: its banner, its configuration, and the strings by which its drivers are known."""

from __future__ import annotations

import mmap

from minicontainer.errors import UnsupportedError
from minicontainer.kvm.boot import setup
from minicontainer.kvm.boot.kernel import InMemory, Kernel, KernelError
from minicontainer.spec.values import is_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import contextmanager
else:
    from minicontainer.light import contextmanager

BANNER = b"Linux version "  # Linux init/version.c
RELEASE_MAX = 64  # uname(2)
CONFIG = b"IKCFG_ST\x1f\x8b"  # Linux kernel/configs.c: the configuration, packed by gzip
CONFIG_MAX = 4 << 20


def is_bzimage(file: Kernel) -> bool:
    """Whether the file has the header of a bzImage (Linux Documentation/arch/x86/boot.rst)."""
    return file.head[0x202:0x206] == b"HdrS"


@contextmanager
def unpacked(file: Kernel) -> Iterator[Kernel | None]:
    """The kernel that is packed in a bzImage, for as long as the context; an ELF file itself. None: it cannot be
    unpacked here."""
    if not is_bzimage(file):
        yield file
        return
    inner = _payload(file)
    if inner is None:
        yield None
        return
    with inner:
        yield inner


def _payload(file: Kernel) -> Kernel | None:
    from minicontainer.kvm.boot import kept, unpack

    try:
        offset, length = setup.parse(file).payload
        if length < 8:
            return None
        packed = file.read(offset, length, "its payload")
        if not packed.startswith(tuple(unpack.FORMATS)):
            return None
        size = int.from_bytes(packed[-4:], "little")
        inner = kept.unpacked(file.path, packed, size) if size <= unpack.WHOLE_MAX else None
    except (KernelError, UnsupportedError):
        return None
    return inner


@contextmanager
def content(file: Kernel) -> Iterator[bytes | mmap.mmap]:
    """The bytes of a kernel, to be searched."""
    if isinstance(file, InMemory):
        yield file.content
        return
    with mmap.mmap(file.fd, file.size, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def release(file: Kernel) -> str:
    """The release in the banner of a kernel that is not packed; "": it has none."""
    with content(file) as image:
        return banner(image)


def banner(image: bytes | mmap.mmap) -> str:
    """The release in the banner that an image holds; "": it holds none."""
    at = -1
    while (at := image.find(BANNER, at + 1)) >= 0:
        if found := release_at(image[at + len(BANNER) : at + len(BANNER) + RELEASE_MAX + 1]):
            return found
    return ""


def release_at(text: bytes) -> str:
    """The release with which a text begins; "": it begins with none. It is used as the name of a directory."""
    word = text.split(b" ", 1)[0].split(b"\0", 1)[0].decode("latin-1")
    is_one = 0 < len(word) <= RELEASE_MAX and word[0].isdigit() and is_word(word, "._+-~")
    return word if is_one else ""


def configuration(image: bytes | mmap.mmap) -> str:
    """The configuration that a kernel with CONFIG_IKCONFIG holds; "": it holds none."""
    import zlib

    at = image.find(CONFIG)
    if at < 0:
        return ""
    at += CONFIG.index(b"\x1f")
    try:
        return zlib.decompressobj(wbits=31).decompress(image[at : at + CONFIG_MAX], CONFIG_MAX).decode("latin-1")
    except zlib.error:
        return ""

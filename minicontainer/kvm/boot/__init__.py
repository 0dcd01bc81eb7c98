"""Kernels: recognised by what is in their files, checked, and loaded into guest memory. Each format has a file."""

from __future__ import annotations

import os

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.format import LINUX_MEMORY, MEMORY, Options
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minicontainer.kvm.boot.format import Format
    from minicontainer.kvm.memory import GuestMemory

__all__ = ["LINUX_MEMORY", "MEMORY", "MODES", "Entry", "Kernel", "KernelError", "Options", "load", "memory_wanted"]

GZIP = b"\x1f\x8b\x08"  # RFC 1952, 2.3.1
MODES = tuple("real protected long user64 pvh linux linux16 linux32 linux64 multiboot multiboot2".split())
FORMATS = (  # module, and bytes that are among the first ones of each of its kernels; the first that fits is taken
    ("linux", b"HdrS"),
    ("pvh", b"\x7fELF"),
    ("multiboot2", b"\xd6\x50\x52\xe8"),
    ("multiboot", b"\x02\xb0\xad\x1b"),
    ("elf", b"\x7fELF"),
    ("sector", b"\x55\xaa"),
    ("foreign", b""),
    ("flat", b""),
)
BY_MODE = {"linux64": "vmlinux"}  # mode -> module of formats that are taken only where it is asked for
REASONS = {  # why a format does not take an option
    "load_address": "a kernel of kind {} says where it goes",
    "entry": "a kernel of kind {} says itself where it is entered",
    "initrd": "a kernel of kind {} takes none: Linux (bzImage, ELF with PVH) and multiboot kernels do",
    "append": "a kernel of kind {} takes none: Linux (bzImage, ELF with PVH) and multiboot kernels do",
}


def load(kernel: Kernel, memory: GuestMemory, options: Options = Options()) -> Entry:  # noqa: B008 - immutable
    """Copies the kernel, its initrd and its command line to memory; returns the kernel's entry. SpecError: an option
    is not for this kernel, or of another type."""
    chosen, kernel = choose(kernel, options.mode)
    options = _checked(options)
    for name, reason in REASONS.items():
        value = getattr(options, name)
        if value is not None and name not in chosen.options:
            shown = hex(value) if isinstance(value, int) else value
            raise SpecError(name.replace("_", "-"), shown, reason.format(chosen.name))
    return chosen.load(kernel, memory, options)


def _checked(options: Options) -> Options:
    """The options, with ``initrd`` as a string."""
    for name in ("load_address", "entry"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, int):
            raise SpecError(name.replace("_", "-"), value, f"must be a whole number, not {type(value).__name__}")
    if isinstance(options.initrd, os.PathLike):
        options = options._replace(initrd=os.fsdecode(options.initrd))
    for name in ("initrd", "append"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise SpecError(name, value, f"must be a string, not {type(value).__name__}")
    return options


def memory_wanted(kernel: Kernel, mode: str | None = None) -> int:
    """The default size of memory for a kernel, in bytes: 2 MiB, or more if its segments need it; 256 MiB for Linux."""
    chosen, kernel = choose(kernel, mode)
    return chosen.memory(kernel)


def choose(kernel: Kernel, mode: str | None) -> tuple[Format, Kernel]:
    """The format in which a kernel is loaded, and the kernel, or what is packed in it. ``mode`` real runs any file as
    it is. KernelError: it is no kernel; SpecError: it cannot be entered in this mode."""
    check_mode(mode)
    if mode != "real":
        kernel = _unpacked(kernel)
    found = list(_formats(kernel, mode))
    if not found[0].modes and mode != "real":
        found[0].memory(kernel)  # says why it is no kernel
    if mode is None:
        return found[0], kernel
    if mode != "real" and not all(f.as_flat for f in found):
        found.pop()
    for f in found:
        if mode in f.modes:
            return f, kernel
    modes = dict.fromkeys(m for f in found for m in f.modes)
    raise SpecError("mode", mode, f"a kernel of kind {found[0].name} is entered in {' or '.join(modes)}")


def _formats(kernel: Kernel, mode: str | None = None) -> Iterator[Format]:
    """The formats that the kernel has; the last is the flat one, which any file has."""
    names = [name for name, magic in FORMATS if magic in kernel.head]
    if mode in BY_MODE:
        names.insert(-1, BY_MODE[mode])
    for name in names:
        module: Any = getattr(__import__(__name__, fromlist=[name]), name)
        yield from (f for f in module.FORMATS if f.is_mine(kernel))


def _unpacked(kernel: Kernel) -> Kernel:
    """The kernel that is packed in the file, if one is; else the file itself."""
    if not kernel.head.startswith(GZIP):
        return kernel
    from minicontainer.kvm.boot import unpack

    if kernel.inner is None:
        kernel.inner = unpack.whole(kernel)
    inner = kernel.inner
    return kernel if next(_formats(inner)).name in ("foreign", "flat") else inner


def check_mode(mode: str | None) -> None:
    """SpecError: there is no such mode."""
    if mode is not None and mode not in MODES:
        raise SpecError("mode", mode, "is no mode", ", ".join(MODES))

"""Kernels: recognised by their first bytes, checked, and loaded into guest memory."""

from __future__ import annotations

from typing import NamedTuple

from minicontainer.errors import SpecError
from minicontainer.kvm.boot import elf, flat
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory

__all__ = ["MODES", "Entry", "Kernel", "KernelError", "Options", "load", "memory_wanted"]

MODES = ("real", "protected", "long", "user64", "pvh", "linux")
MEMORY, LINUX_MEMORY = 2 << 20, 256 << 20  # default memory in bytes
ALLOWED = {  # kind of file -> modes in which it can be entered; the first is the default
    "flat": ("real", "protected", "long", "user64"),
    "boot-sector": ("real",),
    "elf32": ("protected", "pvh"),
    "elf64": ("long", "user64", "pvh"),
    "bzimage": ("linux", "pvh"),
}


class Options(NamedTuple):
    """Options for loading a kernel; None: the file's own value."""

    mode: str | None = None
    load_address: int | None = None
    entry: int | None = None
    initrd: str | None = None
    append: str | None = None


def load(kernel: Kernel, memory: GuestMemory, options: Options = Options()) -> Entry:  # noqa: B008 - immutable
    """Copies the kernel, its initrd and its command line to memory; returns the kernel's entry."""
    kernel.check()
    _check(kernel, options)
    if kernel.kind in ("elf32", "elf64"):
        return _load_elf(kernel, memory, options)
    if kernel.kind == "bzimage":
        from minicontainer.kvm.boot import linux

        return linux.load_bzimage(kernel, memory, options.mode, options.initrd, options.append)
    _no_linux(kernel, options)
    if kernel.kind == "boot-sector" and options.load_address is None and options.entry is None:
        return flat.load_sector(kernel, memory)
    return flat.load(kernel, memory, options.mode or "real", options.load_address, options.entry)


def memory_wanted(kernel: Kernel) -> int:
    """The default size of memory for a kernel, in bytes: 2 MiB, or more if its segments need it; 256 MiB for Linux."""
    kernel.check()
    if kernel.kind == "bzimage":
        return LINUX_MEMORY
    if kernel.kind in ("elf32", "elf64"):
        headers = elf.parse(kernel)
        end = max(s.paddr + s.memsz for s in headers.segments)
        return LINUX_MEMORY if headers.pvh is not None else max(MEMORY, min(-(-end >> 20) << 20, LINUX_MEMORY))
    return max(MEMORY, min(-(-(kernel.size + flat.ADDRESS) >> 20) << 20, LINUX_MEMORY))


def _load_elf(kernel: Kernel, memory: GuestMemory, options: Options) -> Entry:
    headers = elf.parse(kernel)
    if options.mode == "pvh" and headers.pvh is None:
        raise SpecError("mode", "pvh", f"{kernel.path} has no PVH note")
    if options.mode == "pvh" or (options.mode is None and headers.pvh is not None):
        if options.entry is not None:
            raise SpecError("entry", hex(options.entry), "a PVH kernel says itself where it is entered")
        from minicontainer.kvm.boot import pvh

        return pvh.load(kernel, memory, headers, options.initrd, options.append)
    _no_linux(kernel, options)
    default = ALLOWED[kernel.kind][0]
    mode = options.mode or ("user64" if default == "long" and headers.flags & elf.WANTS_USER64 else default)
    return elf.load(kernel, memory, headers, mode, options.entry)


def check_mode(mode: str | None) -> None:
    """SpecError: there is no such mode."""
    if mode is not None and mode not in MODES:
        raise SpecError("mode", mode, "is no mode", ", ".join(MODES))


def _check(kernel: Kernel, options: Options) -> None:
    """SpecError: an option does not apply to this kind of file."""
    allowed = ALLOWED[kernel.kind]
    if kernel.kind == "boot-sector" and options.mode not in (None, "real"):
        kernel.kind, allowed = "flat", ALLOWED["flat"]
    check_mode(options.mode)
    if options.mode is not None and options.mode not in allowed:
        raise SpecError("mode", options.mode, f"a kernel of kind {kernel.kind} is entered in {' or '.join(allowed)}")
    if options.load_address is not None and kernel.kind not in ("flat", "boot-sector"):
        raise SpecError("load-address", hex(options.load_address), f"a kernel of kind {kernel.kind} says where it goes")
    if options.entry is not None and kernel.kind == "bzimage":
        raise SpecError("entry", hex(options.entry), "a bzImage says itself where it is entered")


def _no_linux(kernel: Kernel, options: Options) -> None:
    """SpecError: an option is for Linux alone."""
    for name, value in (("initrd", options.initrd), ("append", options.append)):
        if value is not None:
            raise SpecError(name, value, f"a {kernel.kind} file takes none: only Linux (bzImage, ELF with PVH) does")

"""Kernels: recognised by what is in their files, checked, and loaded into guest memory. Each format has a file."""

from __future__ import annotations

import os

from minicontainer.errors import SpecError
from minicontainer.kvm.boot.format import LINUX_MEMORY, MEMORY, Options
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from functools import lru_cache
    from typing import Any

    from minicontainer.kvm.boot.format import Format
    from minicontainer.kvm.memory import GuestMemory
else:
    from minicontainer.light import lru_cache

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
    given = {name: value for name in REASONS if (value := getattr(options, name)) is not None}
    if given:
        options = options._replace(**_checked(given, chosen))
    return chosen.load(kernel, memory, options)


def _checked(given: dict[str, Any], chosen: Format) -> dict[str, Any]:
    """The options that were given, with ``initrd`` as a string."""
    if isinstance(given.get("initrd"), os.PathLike):
        given["initrd"] = os.fsdecode(given["initrd"])
    for name, value in given.items():
        kind, what = (int, "whole number") if name in ("load_address", "entry") else (str, "string")
        if not isinstance(value, kind):
            raise SpecError(name.replace("_", "-"), value, f"must be a {what}, not {type(value).__name__}")
    for name, value in given.items():
        if name not in chosen.options:
            shown = hex(value) if isinstance(value, int) else value
            raise SpecError(name.replace("_", "-"), shown, REASONS[name].format(chosen.name))
    return given


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
    found = _formats(kernel, mode)
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


def _formats(kernel: Kernel, mode: str | None = None) -> list[Format]:
    """The formats that the kernel has; the last is the flat one, which any file has."""
    head = kernel.head
    names = [name for name, magic in FORMATS if magic in head]
    if mode in BY_MODE:
        names.insert(-1, BY_MODE[mode])
    return [f for name in names for f in _formats_of(name) if f.is_mine(kernel)]


@lru_cache(maxsize=None)
def _formats_of(module: str) -> tuple[Format, ...]:
    found: tuple[Format, ...] = getattr(__import__(__name__, fromlist=[module]), module).FORMATS
    return found


def _unpacked(kernel: Kernel) -> Kernel:
    """The kernel that is packed in the file, if one is; else the file itself."""
    if not kernel.head.startswith(GZIP):
        return kernel
    from minicontainer.kvm.boot import unpack

    if kernel.inner is None:
        kernel.inner = unpack.whole(kernel)
    inner = kernel.inner
    return kernel if _formats(inner)[0].name in ("foreign", "flat") else inner


def check_mode(mode: str | None) -> None:
    """SpecError: there is no such mode."""
    if mode is not None and mode not in MODES:
        raise SpecError("mode", mode, "is no mode", ", ".join(MODES))

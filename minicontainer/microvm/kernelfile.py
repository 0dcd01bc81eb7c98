"""A file with a Linux kernel: its release, and where its modules and its configuration are."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from minicontainer.kvm.boot.kernel import Kernel
else:
    from minicontainer.records import NamedTuple

LINUX64 = "linux64"  # vmlinux.MODE: of an ELF file without a PVH note
ACPI, COMMAND_LINE = "acpi", "command line"  # by what devices are announced
LINUX, LIBKRUNFW = "linux", "libkrunfw"  # kinds
LISTS = ("modules.dep", "modules.order", "modules.builtin")  # files of which a directory of modules has one
VERSION_FIELD = 0x20E  # Linux Documentation/arch/x86/boot.rst: kernel_version, an offset from 0x200


class LinuxKernel(NamedTuple):
    """A kernel for machines.

    path      its file: a bzImage, or an ELF file
    release   as ``uname -r`` prints it
    modules   the directory of its modules (``/lib/modules/RELEASE``); None: there is none
    config    the file of its configuration (``config-RELEASE``); None: there is none
    mode      how it is entered (boot.Options); None: as its format says
    name      under which it is registered; "": it is not
    kind      LINUX, or LIBKRUNFW for the kernel of such a library
    announce  by what it learns of virtio-mmio devices: ACPI tables, or its command line (``device_words``)
    lacks     features (features.py) that it is known not to have"""

    path: str
    release: str
    modules: str | None = None
    config: str | None = None
    mode: str | None = None
    name: str = ""
    kind: str = LINUX
    announce: str = ACPI
    lacks: tuple[str, ...] = ()


def read(path: str) -> LinuxKernel:
    """The kernel in a file. KernelError: it is no Linux kernel for x86_64."""
    from minicontainer.kvm.boot import elf
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.microvm import kernelimage

    with Kernel(path) as file:
        mode = None
        if kernelimage.is_bzimage(file):
            release = _release_of_bzimage(file)
        elif elf.is_elf(file, 64):
            mode = LINUX64 if elf.parse(file).pvh is None else None
            release = kernelimage.release(file)
        else:
            raise file.error("is neither a bzImage nor an ELF file of 64 bits", "such as /boot/vmlinuz-*")
        if not release:
            raise file.error("does not say of which release of Linux it is")
    return LinuxKernel(path, release, modules_beside(path, release), _config_beside(path, release), mode)


def _release_of_bzimage(file: Kernel) -> str:
    from minicontainer.microvm import kernelimage

    at = 0x200 + int.from_bytes(file.head[VERSION_FIELD : VERSION_FIELD + 2], "little")
    if at == 0x200 or at >= file.size:
        return ""
    return kernelimage.release_at(file.read(at, min(kernelimage.RELEASE_MAX + 1, file.size - at), "its version"))


def modules_beside(path: str, release: str) -> str | None:
    """The directory of the modules for a kernel: where the file lies, beside it, or where the host has its own."""
    here = os.path.dirname(os.path.abspath(path))
    above = os.path.dirname(here)
    places = (
        f"{here}/lib/modules",
        f"{above}/lib/modules",
        f"{above}/usr/lib/modules",
        "/lib/modules",
        "/usr/lib/modules",
    )
    found = [here] if os.path.basename(here) == release else []
    return next((place for place in [*found, *(f"{p}/{release}" for p in places)] if is_modules(place)), None)


def is_modules(directory: str) -> bool:
    """Whether a directory holds a kernel's modules, and can be read."""
    return any(os.access(f"{directory}/{name}", os.R_OK) for name in LISTS)


def _config_beside(path: str, release: str) -> str | None:
    here = os.path.dirname(os.path.abspath(path))
    places = (f"{here}/config-{release}", f"{here}/config")
    return next((place for place in places if os.access(place, os.R_OK) and os.path.isfile(place)), None)

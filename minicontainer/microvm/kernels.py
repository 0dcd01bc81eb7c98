"""Finds the kernel that machines boot.

It is the first of these that there is:

1. the one that is asked for (``--kernel``): the registered kernel of this name, else a file
2. the registered kernel that is the default (``minicontainer kernel add --default``)
3. the host's own: /boot/vmlinuz-RELEASE with /lib/modules/RELEASE, where RELEASE is that of uname(2), if both can be
   read
4. of the registered kernels, the one with the newest release
5. of the files /boot/vmlinuz-*, the newest that has modules

A file's modules are those beside it (``kernelfile.modules_beside``).
"""

from __future__ import annotations

import os

from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.microvm import kernelfile, store
from minicontainer.microvm.kernelfile import LinuxKernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LinuxKernel", "device_words", "find"]

BOOT, PREFIX = "/boot", "vmlinuz-"
MODULES = ("/lib/modules", "/usr/lib/modules")  # where some distributions have the kernel too, as RELEASE/vmlinuz
DEVICE_SIZE = "4K"


def find(chosen: str | None = None) -> LinuxKernel:
    """The kernel for a machine. UnsupportedError: there is none; SpecError, KernelError: the chosen one is none."""
    if chosen is not None:
        return _chosen(chosen)
    default = store.default()
    if default is not None:
        return default.kernel
    own = _host()
    if own is not None:
        return own
    registered = [entry.kernel for entry in store.registered() if not entry.damage]
    if registered:
        return max(registered, key=lambda kernel: release_key(kernel.release))
    other = next(_others(), None)
    if other is not None:
        return other
    raise UnsupportedError(
        "kernel", None, f"no kernel for a machine is registered, and none with modules is in {BOOT}",
        "minicontainer kernel fetch, or --kernel FILE",
    )  # fmt: skip


def _chosen(chosen: str) -> LinuxKernel:
    if not chosen:
        raise SpecError("kernel", chosen, "is empty", "a file, or the name of a registered kernel")
    try:
        return store.find(chosen).kernel
    except store.NoKernelError:
        if "/" not in chosen and not os.path.lexists(chosen):
            raise
    from minicontainer.microvm import check

    kernel = kernelfile.read(chosen)
    return kernel if kernel.modules is not None else check.completed(kernel)


def _host() -> LinuxKernel | None:
    """The host's own kernel."""
    release = os.uname().release
    for path in (f"{BOOT}/{PREFIX}{release}", *(f"{place}/{release}/vmlinuz" for place in MODULES)):
        kernel = _with_modules(path)
        if kernel is not None and kernel.release == release:
            return kernel
    return None


def _others() -> Iterator[LinuxKernel]:
    """The kernels of /boot that have modules, the newest first."""
    try:
        names = [name for name in os.listdir(BOOT) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in sorted(names, key=lambda name: release_key(name.removeprefix(PREFIX)), reverse=True):
        kernel = _with_modules(f"{BOOT}/{name}")
        if kernel is not None:
            yield kernel


def _with_modules(path: str) -> LinuxKernel | None:
    """The kernel in a file that nobody has asked for; None: it cannot be read, is none, or has no modules."""
    if not os.access(path, os.R_OK):
        return None
    from minicontainer.kvm.boot.kernel import KernelError

    try:
        kernel = kernelfile.read(path)
    except KernelError:
        return None
    return kernel if kernel.modules is not None else None


def release_key(release: str) -> list[tuple[int, int, str]]:
    """A key by which releases are sorted: numbers by their value, before words."""
    parts: list[str] = []
    for char in release:
        if parts and char.isdecimal() == parts[-1][-1:].isdecimal():
            parts[-1] += char
        else:
            parts.append(char)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def device_words(devices: Iterable[tuple[int, int]]) -> str:
    """What the command line of a kernel that is so ``announce``-d to has for virtio-mmio devices, each of one page at
    an address and with an interrupt (Linux drivers/virtio/virtio_mmio.c, "virtio_mmio.device")."""
    return " ".join(f"virtio_mmio.device={DEVICE_SIZE}@{address:#x}:{irq}" for address, irq in devices)

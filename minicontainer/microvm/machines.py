"""A machine for a kernel, a size of memory and a number of processors: the descriptors that csrc/vmm reads."""

from __future__ import annotations

import os

from minicontainer.errors import Error
from minicontainer.microvm import initramfs, keeping, kernels
from minicontainer.microvm.devices import ALWAYS
from minicontainer.microvm.kernelfile import ACPI, LinuxKernel
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    from minicontainer.microvm.devices import Device
else:
    from minicontainer.records import NamedTuple

KVM = "/dev/kvm"
# quiet: each byte on the serial port is an exit. panic, reboot: a panic ends the machine. The others leave out what
# such a machine does not have (Linux Documentation/admin-guide/kernel-parameters.txt).
COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable no_timer_check 8250.nr_uarts=1 i8042.noaux i8042.nokbd"
    " cryptomgr.notests pci=off rcupdate.rcu_expedited=1"
)
# A kernel without serial port and ACPI, whose devices are announced on the command line.
BARE_COMMAND_LINE = "quiet panic=-1 reboot=t tsc=reliable no-kvmapf"


class Machine(NamedTuple):
    """``data``: struct mc_machine; ``files``: descriptors of the files that it names, which the caller owns."""

    kernel: LinuxKernel
    data: bytes
    files: tuple[int, ...]


def make(chosen: str | None, memory: int, cpus: int, devices: Sequence[Device] = ALWAYS) -> Machine:
    """The machine for a kernel (kernels.find), with ``memory`` bytes. UnsupportedError: there is no KVM, or no kernel
    that can be used; SpecError, KernelError: the chosen one cannot."""
    kernel = kernels.find(chosen)
    archive = initramfs.open_base(kernel, devices)
    try:
        data, files = _kept(kernel, archive, memory, cpus, devices)
    finally:
        os.close(archive)
    if len(files) > lib.MC_VMM_FILES:
        for fd in files:
            os.close(fd)
        raise Error(f"kernel {kernel.path}: it lies in {len(files)} files")
    return Machine(kernel, data, files)


def _kept(
    kernel: LinuxKernel, archive: int, memory: int, cpus: int, devices: Sequence[Device]
) -> tuple[bytes, tuple[int, ...]]:
    """Data and files of a machine that is kept; else of one that is made, and kept."""
    kinds = [device.kind for device in devices]
    asked = (kernel.mode, kernel.announce, COMMAND_LINE, BARE_COMMAND_LINE, memory, cpus, kinds)
    try:
        kvm = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
        try:
            keep = keeping.Keeping(kernel.path, archive, kvm, asked)
        finally:
            os.close(kvm)
        found = keep.find()
    except OSError:  # what is made next says why
        return _made(kernel, archive, memory, cpus, devices)
    if found is None:
        found = _made(kernel, archive, memory, cpus, devices)
        keep.keep(*found)
    return found


def _made(
    kernel: LinuxKernel, archive: int, memory: int, cpus: int, devices: Sequence[Device]
) -> tuple[bytes, tuple[int, ...]]:
    from minicontainer.kvm.system import Kvm
    from minicontainer.microvm import image

    has_acpi = kernel.announce == ACPI
    words = COMMAND_LINE if has_acpi else f"{BARE_COMMAND_LINE} {kernels.device_words(image.device_places(devices))}"
    what = image.Boot(kernel.path, f"/proc/self/fd/{archive}", words, kernel.mode, has_acpi, devices)
    with Kvm() as kvm:
        return image.make(kvm, what, memory, cpus)

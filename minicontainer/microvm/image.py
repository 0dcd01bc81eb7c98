"""A machine as data: what csrc/vmm needs to make it, without a line of Python (struct mc_machine, csrc/vmm/machine.h).

Kernel, initramfs and tables go through the same loaders as those of ``kvm-boot``, into memory that records them.
"""

from __future__ import annotations

from minicontainer.kvm import acpi, biosdata, boot, cpuid, processor
from minicontainer.kvm.boot import pc
from minicontainer.kvm.boot.kernel import opened
from minicontainer.microvm.devices import ALWAYS
from minicontainer.microvm.recorded import Copied, RecordedMemory
from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NamedTuple

    from minicontainer.kvm.boot.kernel import Entry
    from minicontainer.kvm.system import Kvm
    from minicontainer.microvm.devices import Device
else:
    from minicontainer.records import NamedTuple

FIRST_DEVICE, FIRST_IRQ = 0xD0000000, 5
ALIGNMENT = 8


class Image(NamedTuple):
    """``data``: the content of the memfd; ``files``: descriptors of the files that it names, which the caller owns."""

    data: bytes
    files: tuple[int, ...]


class Boot(NamedTuple):
    """What is booted: paths of kernel and initramfs, the command line, and how the kernel is entered (boot.Options).
    ``has_acpi``: whether the kernel reads ACPI tables; one that does not finds processors in an MP table, and devices
    on its command line."""

    kernel: str
    initramfs: str
    append: str
    mode: str | None = None
    has_acpi: bool = True
    devices: Sequence[Device] = ALWAYS


def device_places(devices: Sequence[Device]) -> list[tuple[int, int]]:
    """Address and interrupt of each device."""
    return [(FIRST_DEVICE + i * acpi.VIRTIO_SIZE, FIRST_IRQ + i) for i in range(len(devices))]


def make(kvm: Kvm, what: Boot, memory: int, cpus: int) -> Image:
    """The machine that boots ``what``, with ``memory`` bytes. KernelError, SpecError: it cannot be booted so."""
    recorded = RecordedMemory(memory)
    try:
        with opened(what.kernel) as file:
            options = boot.Options(what.mode, initrd=what.initramfs, append=what.append)
            entry = boot.load(file, recorded, options)
        if what.has_acpi:
            acpi.write(recorded, cpus, virtio=device_places(what.devices))
        else:
            entry = biosdata.write(entry, recorded, cpus, irqchip=True)
        pc.write_reset_code(recorded)
        return Image(_encode(kvm, recorded, entry, cpus, what.devices), tuple(recorded.files))
    except BaseException:
        recorded.close()
        raise


def _encode(kvm: Kvm, memory: RecordedMemory, entry: Entry, cpus: int, devices: Sequence[Device]) -> bytes:
    sregs = ffi.new("struct kvm_sregs *")
    processor.enter_mode(sregs, entry, processor.write_tables(entry, memory))
    processors = [cpuid.for_processor(kvm, number, cpus, irqchip=True) for number in range(cpus)]
    blob = _Blob(ffi.sizeof("struct mc_machine"))
    header = ffi.new("struct mc_machine *")
    header.magic, header.memory, header.cpus = lib.MC_MACHINE_MAGIC, memory.size, cpus
    header.devices, header.irq = FIRST_DEVICE, FIRST_IRQ
    header.ndevices, header.kinds = len(devices), [device.kind for device in devices]
    header.regs = blob.add(bytes(ffi.buffer(processor.registers_of(entry, memory))))
    header.sregs = blob.add(bytes(ffi.buffer(sregs)))
    msrs = ffi.new("struct mc_machine_msr[]", list(processor.LINUX_MSRS.items()))
    header.nmsrs, header.msrs = len(msrs), blob.add(bytes(ffi.buffer(msrs)))
    leaves = [bytes(ffi.buffer(_used(entries))) for entries in processors]
    header.cpuid_size = blob.aligned(len(leaves[0]))
    header.cpuid = blob.add(b"".join(leaf.ljust(header.cpuid_size, b"\0") for leaf in leaves))
    segments = _segments(memory, blob)
    header.nsegments, header.segments = len(segments), blob.add(bytes(ffi.buffer(segments)))
    header.size = len(blob.data)
    blob.data[: ffi.sizeof("struct mc_machine")] = bytes(ffi.buffer(header))
    return bytes(blob.data)


class _Blob:
    """Bytes that grow, aligned for structures of C."""

    def __init__(self, head: int) -> None:
        self.data = bytearray(self.aligned(head))

    @staticmethod
    def aligned(size: int) -> int:
        return -(-size // ALIGNMENT) * ALIGNMENT

    def add(self, content: bytes) -> int:
        """The offset at which the content is."""
        at = len(self.data)
        self.data += content.ljust(self.aligned(len(content)), b"\0")
        return at


def _used(entries: Any) -> Any:
    """The part of a ``struct kvm_cpuid2`` that has entries, as an array of bytes."""
    size = ffi.sizeof("struct kvm_cpuid2") + entries.nent * ffi.sizeof("struct kvm_cpuid_entry2")
    return ffi.cast(f"char(*)[{size}]", entries)[0]


def _segments(memory: RecordedMemory, blob: _Blob) -> Any:
    """The array of struct mc_machine_segment; what was written is added to the blob."""
    segments: Sequence[Any] = ffi.new("struct mc_machine_segment[]", len(memory.writes))
    for segment, write in zip(segments, memory.writes, strict=True):
        segment.address = write.address
        if isinstance(write, Copied):
            segment.size, segment.offset, segment.file = write.size, write.offset, write.number
        else:
            segment.size, segment.offset, segment.file = len(write.data), blob.add(write.data), lib.MC_MACHINE_SELF
    return segments

"""CPUID for guests: the features that host and KVM support, and the topology of each processor."""

from __future__ import annotations

from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.kvm.system import Kvm

HTT = 1 << 28  # leaf 1, EDX: the count of processors in leaf 1 is valid
HYPERVISOR, TSC_DEADLINE, X2APIC = 1 << 31, 1 << 24, 1 << 21  # leaf 1, ECX
PDCM = 1 << 15  # leaf 1, ECX: announces IA32_PERF_CAPABILITIES, which not every KVM emulates
LEVEL_THREAD, LEVEL_CORE = 1, 2  # leaf 0xb, ECX[15:8]

_supported: list[Any] = []
_cache: dict[tuple[int, int, bool], Any] = {}


def supported(kvm: Kvm) -> Any:
    """KVM_GET_SUPPORTED_CPUID, once per process: the host's processor does not change."""
    if not _supported:
        _supported.append(kvm.get_supported_cpuid())
    return _supported[0]


def features(kvm: Kvm, leaf: int, index: int = 0) -> tuple[int, int, int, int]:
    """(EAX, EBX, ECX, EDX) of a leaf; zeros: there is no such leaf."""
    for e in entries(supported(kvm)):
        if e.function == leaf and e.index == index:
            return e.eax, e.ebx, e.ecx, e.edx
    return 0, 0, 0, 0


def entries(cpuid: Any) -> list[Any]:
    """The entries of a ``struct kvm_cpuid2``."""
    return [cpuid.entries[i] for i in range(cpuid.nent)]


def for_processor(kvm: Kvm, number: int, count: int, *, irqchip: bool) -> Any:
    """The ``struct kvm_cpuid2 *`` of processor ``number`` of ``count``: one package of cores, each with one thread.

    APIC ids: leaf 1 EBX[31:24], leaf 0xb EDX (Intel SDM volume 2, CPUID; as Firecracker normalises them)."""
    key = number, count, irqchip
    if key not in _cache:
        _cache[key] = _patched(supported(kvm), number, count, irqchip=irqchip)
    return _cache[key]


def _patched(source: Any, number: int, count: int, *, irqchip: bool) -> Any:
    cpuid = ffi.new("struct kvm_cpuid2 *", {"entries": source.nent + 2})
    copied = [e for e in entries(source) if e.function not in (0xB, 0x1F)]
    for i, entry in enumerate(copied):
        ffi.memmove(ffi.addressof(cpuid.entries, i), ffi.addressof(entry), ffi.sizeof("struct kvm_cpuid_entry2"))
    cpuid.nent = len(copied)
    for e in entries(cpuid):
        _patch(e, number, count, irqchip=irqchip)
    if any(e.function == 0xB for e in entries(source)):
        _add_topology(cpuid, number, count)
    return cpuid


def _patch(e: Any, number: int, count: int, *, irqchip: bool) -> None:
    if e.function == 0x1:
        e.ebx = e.ebx & 0xFFFF | count << 16 | number << 24
        e.ecx = (e.ecx & ~(PDCM | (0 if irqchip else TSC_DEADLINE | X2APIC))) | HYPERVISOR
        if irqchip:
            e.ecx |= TSC_DEADLINE  # KVM's local APIC has it, but KVM_GET_SUPPORTED_CPUID does not report it
        e.edx = e.edx | HTT if count > 1 else e.edx & ~HTT
    elif e.function == 0x4:
        e.eax = e.eax & 0x3FFF | min(count - 1, 0x3F) << 26  # cores in the package; no cache is shared
    elif e.function == 0x80000008:
        # AMD: number of cores, and the width of their APIC ids
        e.ecx = e.ecx & ~0xF0FF | _bits(count) << 12 | count - 1
    elif e.function == 0x8000001D:
        e.eax &= 0x3FFF  # AMD: as leaf 4
    elif e.function == 0x8000001E:
        e.eax = e.ebx = number  # AMD: APIC id and core, with one thread; KVM reports zeros


def _bits(count: int) -> int:
    """The number of bits for ``count`` different numbers."""
    return (count - 1).bit_length()


def _add_topology(cpuid: Any, number: int, count: int) -> None:
    levels = ((0, 0, 1, LEVEL_THREAD), (1, _bits(count), count, LEVEL_CORE))
    for index, shift, processors, level in levels:
        e = cpuid.entries[cpuid.nent]
        e.function, e.index, e.flags = 0xB, index, lib.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        e.eax, e.ebx, e.ecx, e.edx = shift, processors, level << 8 | index, number
        cpuid.nent += 1

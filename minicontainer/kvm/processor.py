"""The initial state of the virtual CPUs: registers, tables and CPUID for the loaded kernel."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.kvm import cpuid, x86
from minicontainer.kvm.descriptor import PAGE
from minicontainer.native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from minicontainer.kvm.boot.kernel import Entry
    from minicontainer.kvm.memory import GuestMemory
    from minicontainer.kvm.registers import Xcrs
    from minicontainer.kvm.system import Kvm
    from minicontainer.kvm.vcpu import Vcpu
else:
    from minicontainer.records import NamedTuple

XSAVE = 1 << 26  # leaf 1, ECX
AVX_STATE = 7  # XCR0: x87, SSE, AVX
LOWEST_TABLES = 0x2000  # above the interrupt vectors and the first page of flat binaries
STACK_TOP = 0x9FC00  # the end of a PC's memory below 640 KiB (the EBDA follows)

# Model-specific registers that Linux expects a PC's firmware to set (Intel SDM volume 4).
MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING = 0x1A0, 1
MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK = 0x2FF, 0x806
LINUX_MSRS = {MSR_MISC_ENABLE: MISC_ENABLE_FAST_STRING, MSR_MTRR_DEF_TYPE: MTRR_ENABLED_WRITE_BACK}
# Registers of a local APIC, and delivery modes (Intel SDM volume 3, "Local APIC").
APIC_LVT0, APIC_LVT1 = 0x350, 0x360
DELIVER_NMI, DELIVER_EXTINT = 4 << 8, 7 << 8


def free_address(used: list[tuple[int, int]], memory: GuestMemory, size: int) -> int:
    """The lowest page-aligned address at which ``size`` bytes of tables do not overlap the ``used`` ranges."""
    at = LOWEST_TABLES
    for start, length in sorted(used):
        if start >= at + size:
            break
        at = max(at, -(-(start + length) // PAGE) * PAGE)
    if at + size > memory.regions[0].size:
        raise SpecError("memory", memory.size, f"leaves no room for {size} bytes of processor tables", "--memory")
    return at


def write_tables(entry: Entry, memory: GuestMemory) -> int:
    """Writes descriptor and page tables for the entry's mode; returns their address. Real mode has none: 0."""
    if entry.mode in ("real", "reset"):
        return 0
    wide = entry.mode in ("long", "user64")
    at = free_address(entry.used, memory, x86.tables_size(memory, wide))
    x86.tables(memory, at, wide=wide, user=entry.mode == "user64")
    return at


class InitialState(NamedTuple):
    """The initial state of the ``cpus`` processors of a machine; ``tables``: the address of write_tables()."""

    kvm: Kvm
    memory: GuestMemory
    entry: Entry
    tables: int
    cpus: int
    irqchip: bool

    def set_up(self, vcpu: Vcpu, number: int) -> None:
        """Sets the state of processor ``number``. Only the first processor enters the kernel; with an irqchip the
        others wait for its INIT and SIPI, and start in real mode."""
        vcpu.set_cpuid2(cpuid.for_processor(self.kvm, number, self.cpus, irqchip=self.irqchip))
        if self.entry.linux:
            _linux_registers(vcpu)
        if self.irqchip:
            _local_interrupts(vcpu)
        if number == 0:
            self._enter(vcpu)

    def _enter(self, vcpu: Vcpu) -> None:
        entry = self.entry
        if entry.mode == "reset":
            return  # KVM has just done that
        xsave = entry.mode == "user64" and bool(cpuid.features(self.kvm, 1)[2] & XSAVE)
        sregs = vcpu.get_sregs()
        enter_mode(sregs, entry, self.tables, xsave=xsave)
        vcpu.set_sregs(sregs)
        if xsave:
            vcpu.set_xcrs(_extended_state(self.kvm))
        vcpu.set_regs(registers_of(entry, self.memory))


def enter_mode(sregs: Any, entry: Entry, tables: int, *, xsave: bool = False) -> None:
    """Changes a ``struct kvm_sregs`` to the entry's mode; ``tables``: the address of write_tables()."""
    if entry.mode == "real":
        x86.real(sregs, entry.segment, entry.code_segment)
    elif entry.mode == "protected":
        x86.protected(sregs, tables)
    else:
        x86.long(sregs, tables, user=entry.mode == "user64", xsave=xsave)


def registers_of(entry: Entry, memory: GuestMemory) -> Any:
    """The ``struct kvm_regs *`` with which a processor enters the kernel."""
    stack = min(memory.regions[0].size, STACK_TOP)
    iopl = x86.RFLAGS_IOPL3 if entry.mode == "user64" else 0
    registers = {"rsp": stack, "rip": entry.rip, "rflags": x86.RFLAGS_1 | iopl}
    return ffi.new("struct kvm_regs *", registers | entry.registers)


def _extended_state(kvm: Kvm) -> Xcrs:
    """XCR0 with x87, SSE and, if supported, AVX."""
    allowed = cpuid.features(kvm, 0xD)[0] | 3
    xcrs: Xcrs = ffi.new("struct kvm_xcrs *", {"nr_xcrs": 1, "xcrs": [{"xcr": 0, "value": allowed & AVX_STATE}]})
    return xcrs


def _linux_registers(vcpu: Vcpu) -> None:
    vcpu.set_msrs(LINUX_MSRS)
    fpu = vcpu.get_fpu()
    fpu.fcw = 0x37F  # as after FNINIT. MXCSR has its reset value; KVM_SET_FPU ignores it
    vcpu.set_fpu(fpu)


def _local_interrupts(vcpu: Vcpu) -> None:
    """LINT0 delivers the PIC's interrupts, LINT1 NMIs: the local APIC's state after a PC's firmware."""
    lapic = vcpu.get_lapic()
    raw = ffi.buffer(lapic.regs)
    for register, mode in ((APIC_LVT0, DELIVER_EXTINT), (APIC_LVT1, DELIVER_NMI)):
        value = int.from_bytes(raw[register : register + 4], "little") & ~0x10700 | mode  # not masked
        raw[register : register + 4] = value.to_bytes(4, "little")
    vcpu.set_lapic(lapic)

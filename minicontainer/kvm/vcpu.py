"""A virtual CPU's descriptor (Linux Documentation/virt/kvm/api.rst, "vCPU ioctls")."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minicontainer.kvm.descriptor import Descriptor, Watch
from minicontainer.kvm.exits import Exit, InterruptedExit, typed
from minicontainer.native import check, ffi, lib, now

if TYPE_CHECKING:
    from minicontainer.kvm.registers import Cpuid, Debugregs, Events, Fpu, Lapic, Regs, Sregs, Synced, Xcrs, Xsave


class Vcpu(Descriptor):
    """The descriptor of KVM_CREATE_VCPU. Structures are the kernel's: ``regs = vcpu.get_regs(); regs.rip = 0x1000``."""

    run_page: Any = ffi.NULL  # struct kvm_run

    def __init__(self, fd: int, mmap_size: int, watch: Watch | None = None) -> None:
        super().__init__(fd, watch)
        page = ffi.new("void **")
        start = now()
        check(lib.mc_run_map(fd, mmap_size, page), "mmap", "vcpu", mmap_size)
        if watch is not None:
            watch(f"mmap(vcpu, {mmap_size:#x})", start, now(), 0)
        self.run_page = page[0]
        self._mmap_size = mmap_size
        self._exit = ffi.new("struct mc_exit *")

    def close(self) -> None:
        """Unmaps struct kvm_run, and closes the descriptor."""
        page, self.run_page = self.run_page, ffi.NULL
        if page != ffi.NULL:
            lib.mc_run_unmap(page, self._mmap_size)
        super().close()

    # ---- running

    def run(self) -> Exit:
        """KVM_RUN: enters the guest until its next exit. InterruptedExit: a signal for this thread ended it."""
        result = lib.mc_ioctl_value(self.fd, lib.KVM_RUN, 0)
        while result == -errno.EAGAIN:  # the virtual CPU has received the SIPI that it waited for
            result = lib.mc_ioctl_value(self.fd, lib.KVM_RUN, 0)
        if result == -errno.EINTR:
            return InterruptedExit()
        check(result, "KVM_RUN")
        lib.mc_exit_decode(self.run_page, self._exit)
        return typed(self._exit)

    def immediate_exit(self, on: bool = True) -> None:
        """While it is on, ``run`` completes the last exit (takes the data of a read, ends the instruction), and returns
        an InterruptedExit without entering the guest."""
        lib.mc_run_immediate(self._mapped(), on)

    def sync_regs(self, valid: int = 0, dirty: int = 0) -> Synced:
        """KVM_CAP_SYNC_REGS: returns a ``struct kvm_sync_regs *``. From now on each exit fills in its parts ``valid``
        (KVM_SYNC_X86_REGS ...), without an ioctl; the next run loads the parts ``dirty`` from it, once."""
        registers: Synced = ffi.cast("struct kvm_sync_regs *", lib.mc_run_sync(self._mapped(), valid, dirty))
        return registers

    def _mapped(self) -> Any:
        if self.run_page == ffi.NULL:
            raise ValueError("vcpu: it is closed")
        return self.run_page

    def interrupt(self, vector: int) -> None:
        """KVM_INTERRUPT: queues an external interrupt. Only without an in-kernel irqchip."""
        self.ioctl("KVM_INTERRUPT", ffi.new("uint32_t *", vector), vector)

    def nmi(self) -> None:
        """KVM_NMI."""
        self.ioctl_value("KVM_NMI")

    # ---- registers

    def get_regs(self) -> Regs:
        """KVM_GET_REGS: the general registers, rip and rflags (``struct kvm_regs *``).

        It is a cdata of cffi, which cannot be subclassed, so its repr has no values. To print them:
        ``{name: hex(getattr(regs, name)) for name in dir(regs)}``."""
        value: Regs = self.get("KVM_GET_REGS", "struct kvm_regs")
        return value

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS."""
        self.ioctl("KVM_SET_REGS", regs)

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS: segments, tables, control registers (``struct kvm_sregs *``)."""
        value: Sregs = self.get("KVM_GET_SREGS", "struct kvm_sregs")
        return value

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS."""
        self.ioctl("KVM_SET_SREGS", sregs)

    def get_fpu(self) -> Fpu:
        """KVM_GET_FPU: x87 and SSE (``struct kvm_fpu *``). KVM does not fill in ``mxcsr``; get_xsave has it."""
        value: Fpu = self.get("KVM_GET_FPU", "struct kvm_fpu")
        return value

    def set_fpu(self, fpu: Fpu) -> None:
        """KVM_SET_FPU."""
        self.ioctl("KVM_SET_FPU", fpu)

    def get_xsave(self) -> Xsave:
        """KVM_GET_XSAVE: the first 4 KiB of the XSAVE area (``struct kvm_xsave *``)."""
        value: Xsave = self.get("KVM_GET_XSAVE", "struct kvm_xsave")
        return value

    def set_xsave(self, xsave: Xsave) -> None:
        """KVM_SET_XSAVE."""
        self.ioctl("KVM_SET_XSAVE", xsave)

    def get_xcrs(self) -> Xcrs:
        """KVM_GET_XCRS: the extended control registers (``struct kvm_xcrs *``)."""
        value: Xcrs = self.get("KVM_GET_XCRS", "struct kvm_xcrs")
        return value

    def set_xcrs(self, xcrs: Xcrs) -> None:
        """KVM_SET_XCRS."""
        self.ioctl("KVM_SET_XCRS", xcrs)

    def get_debugregs(self) -> Debugregs:
        """KVM_GET_DEBUGREGS (``struct kvm_debugregs *``)."""
        value: Debugregs = self.get("KVM_GET_DEBUGREGS", "struct kvm_debugregs")
        return value

    def set_debugregs(self, debugregs: Debugregs) -> None:
        """KVM_SET_DEBUGREGS."""
        self.ioctl("KVM_SET_DEBUGREGS", debugregs)

    def get_msrs(self, indices: Sequence[int]) -> dict[int, int]:
        """KVM_GET_MSRS: model-specific registers by index, up to the first that KVM does not support."""
        msrs = ffi.new("struct kvm_msrs *", {"nmsrs": len(indices), "entries": [{"index": i} for i in indices]})
        count = self.ioctl("KVM_GET_MSRS", msrs)
        return {msrs.entries[i].index: msrs.entries[i].data for i in range(count)}

    def set_msrs(self, values: Mapping[int, int]) -> int:
        """KVM_SET_MSRS, in this order; returns the number of registers that were set. KVM stops at the first register
        that it refuses."""
        entries = [{"index": index, "data": value} for index, value in values.items()]
        msrs = ffi.new("struct kvm_msrs *", {"nmsrs": len(entries), "entries": entries})
        return self.ioctl("KVM_SET_MSRS", msrs, f"{len(entries)} registers")

    def set_cpuid2(self, cpuid: Cpuid) -> None:
        """KVM_SET_CPUID2: the results of the CPUID instruction (``struct kvm_cpuid2 *``). Before the first run."""
        self.ioctl("KVM_SET_CPUID2", cpuid, f"{cpuid.nent} entries")

    def get_cpuid2(self, room: int = 256) -> Cpuid:
        """KVM_GET_CPUID2."""
        value: Cpuid = ffi.new("struct kvm_cpuid2 *", {"nent": room, "entries": room})
        self.ioctl("KVM_GET_CPUID2", value)
        while value.nent > 1 and value.entries[value.nent - 1].function == 0:
            value.nent -= 1  # Linux 6.1 does not update nent
        return value

    # ---- other state

    def get_lapic(self) -> Lapic:
        """KVM_GET_LAPIC: the local APIC's registers, 16 bytes apart (``struct kvm_lapic_state *``). Only with an
        irqchip."""
        value: Lapic = self.get("KVM_GET_LAPIC", "struct kvm_lapic_state")
        return value

    def set_lapic(self, lapic: Lapic) -> None:
        """KVM_SET_LAPIC."""
        self.ioctl("KVM_SET_LAPIC", lapic)

    def get_vcpu_events(self) -> Events:
        """KVM_GET_VCPU_EVENTS: pending exceptions, interrupts, NMIs (``struct kvm_vcpu_events *``)."""
        value: Events = self.get("KVM_GET_VCPU_EVENTS", "struct kvm_vcpu_events")
        return value

    def set_vcpu_events(self, events: Events) -> None:
        """KVM_SET_VCPU_EVENTS."""
        self.ioctl("KVM_SET_VCPU_EVENTS", events)

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE: KVM_MP_STATE_RUNNABLE, _HALTED, _UNINITIALIZED ..."""
        return int(self.get("KVM_GET_MP_STATE", "struct kvm_mp_state").mp_state)

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE."""
        self.ioctl("KVM_SET_MP_STATE", ffi.new("struct kvm_mp_state *", (state,)), state)

    def set_guest_debug(
        self, *, single_step: bool = False, breakpoints: Sequence[int] = (), block_irq: bool = False
    ) -> None:
        """KVM_SET_GUEST_DEBUG: a DebugExit after each instruction, or at breakpoints (up to four addresses of rip);
        with neither, debugging is off. ``block_irq``: interrupts are blocked (since Linux 5.16; earlier kernels ignore
        it)."""
        if len(breakpoints) > 4:
            raise ValueError(f"{len(breakpoints)} hardware breakpoints: a processor has four")
        control = (lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_SINGLESTEP) if single_step else 0
        control |= lib.KVM_GUESTDBG_BLOCKIRQ if block_irq else 0
        registers = [0] * 8
        if breakpoints:
            control |= lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_USE_HW_BP
            registers[: len(breakpoints)] = breakpoints
            registers[7] = 0x400 | sum(2 << 2 * i for i in range(len(breakpoints)))  # G0 to G3: break on execution
        debug = ffi.new("struct kvm_guest_debug *", {"control": control, "arch": {"debugreg": registers}})
        self.ioctl("KVM_SET_GUEST_DEBUG", debug, f"{control:#x}")

    def translate(self, linear: int) -> int | None:
        """KVM_TRANSLATE: the guest physical address of a linear address, by the guest's page tables; None: not
        mapped."""
        value = ffi.new("struct kvm_translation *", {"linear_address": linear})
        self.ioctl("KVM_TRANSLATE", value, f"{linear:#x}")
        return int(value.physical_address) if value.valid else None

    def get_tsc_khz(self) -> int:
        """KVM_GET_TSC_KHZ: the frequency of the guest's time stamp counter."""
        return self.ioctl_value("KVM_GET_TSC_KHZ")

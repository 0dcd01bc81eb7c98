"""A virtual CPU's descriptor (Linux Documentation/virt/kvm/api.rst, "vCPU ioctls")."""

from __future__ import annotations

import errno

from minicontainer.errors import SpecError
from minicontainer.kvm.descriptor import Descriptor, listed, mapped, must_be, number, part, structure
from minicontainer.kvm.exits import InterruptedExit, typed
from minicontainer.kvm.registers import Synced
from minicontainer.native import check, ffi, lib, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from minicontainer.kvm.exits import Exit
    from minicontainer.kvm.registers import (
        Cpuid,
        Debugregs,
        Events,
        Fpu,
        Lapic,
        Regs,
        Sregs,
        Sregs2,
        Xcrs,
        Xsave,
    )

CPUID_MAX = 4096  # entries; KVM has 256 today (KVM_MAX_CPUID_ENTRIES)
XSAVE_MIN = 4096  # bytes: sizeof(struct kvm_xsave)


class Vcpu(Descriptor):
    """The descriptor of KVM_CREATE_VCPU. Structures are the kernel's: ``regs = vcpu.get_regs(); regs.rip = 0x1000``.

    A part of a structure (``cs = sregs.cs``) can be used for as long as the structure is referred to (``sregs``)."""

    control: Any = None  # struct mc_vcpu of what runs it beside ``run`` (drive.py): it loses the descriptor too
    synced: Synced | None = None  # what sync_regs has returned
    _mapped: tuple[Any, Any] = None, None  # struct kvm_run: for C, and as bytes

    def __init__(self, fd: int, mmap_size: int, vm: Descriptor, ring_size: int = 0) -> None:
        super().__init__(fd, vm.watch)
        self.vm, self.ring_size = vm, ring_size  # bytes of its dirty ring; 0: it has none
        self._exit = ffi.new("struct mc_exit *")
        start = now()
        pages = mapped(fd, mmap_size, 0, "vcpu")
        if self.watch is not None:
            self.watch(f"mmap(vcpu, {mmap_size:#x})", start, now(), 0)
        self._mapped = pages, memoryview(ffi.buffer(pages, mmap_size))

    def close(self) -> None:
        """Closes the descriptor; at any time, by any thread. A ``run`` of now is the last. struct kvm_run is unmapped
        when that is over, and nothing refers to the data of an exit or to what ``sync_regs`` has returned."""
        if self.control is not None:
            self.control.fd = -1
        super().close()  # first: without a descriptor nobody enters the guest
        self._mapped, self.synced = (None, None), None

    # ---- running

    def run(self) -> Exit:
        """KVM_RUN: enters the guest until its next exit. InterruptedExit: a signal for this thread ended it."""
        page, pages = self._mapped  # kept for as long as this call, whoever closes the vcpu
        result = lib.mc_ioctl_value(self.fd, lib.KVM_RUN, 0)
        while result == -errno.EAGAIN:  # the virtual CPU has received the SIPI that it waited for
            result = lib.mc_ioctl_value(self.fd, lib.KVM_RUN, 0)
        if result == -errno.EINTR:
            return InterruptedExit()
        check(result, "KVM_RUN")
        lib.mc_exit_decode(page, self._exit)
        return typed(self._exit, pages)

    def immediate_exit(self, on: bool = True) -> None:
        """While it is on, ``run`` completes the last exit (takes the data of a read, ends the instruction), and returns
        an InterruptedExit without entering the guest."""
        lib.mc_run_immediate(self.mapped()[0], bool(on))

    def sync_regs(self, valid: int = 0, dirty: int = 0) -> Synced:
        """KVM_CAP_SYNC_REGS: returns ``struct kvm_sync_regs``. From now on each exit fills in its parts ``valid``
        (KVM_SYNC_X86_REGS ...), without an ioctl; the next run loads the parts ``dirty`` from it, once."""
        page, _ = self.mapped()
        at = lib.mc_run_sync(page, number("sync_regs valid", valid, 64), number("sync_regs dirty", dirty, 64))
        synced = self.synced
        if synced is None:
            fields = ffi.typeof("struct kvm_sync_regs").fields
            parts = {name: part(page, at + field.offset, f"{field.type.cname} *") for name, field in fields}
            synced = self.synced = Synced(**parts)
        return synced

    def answer_msr(self, value: int = 0, *, fault: bool = False) -> None:
        """After an MsrExit, before the next run: the value that the guest reads; ``fault``: it gets #GP."""
        lib.mc_run_answer_msr(self.mapped()[0], number("answer_msr", value, 64), bool(fault))

    def mapped(self) -> tuple[Any, memoryview]:
        """struct kvm_run, for C and as bytes: mapped for as long as the caller keeps them. ValueError: the vcpu is
        closed."""
        page, pages = self._mapped
        if pages is None:
            raise ValueError("vcpu: it is closed")
        return page, pages

    def interrupt(self, vector: int) -> None:
        """KVM_INTERRUPT: queues an external interrupt. Only without an in-kernel irqchip."""
        self.send("KVM_INTERRUPT", "uint32_t", vector, vector)

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
        self.put("KVM_SET_REGS", "struct kvm_regs", regs)

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS: segments, tables, control registers (``struct kvm_sregs *``)."""
        value: Sregs = self.get("KVM_GET_SREGS", "struct kvm_sregs")
        return value

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS."""
        self.put("KVM_SET_SREGS", "struct kvm_sregs", sregs)

    def get_sregs2(self) -> Sregs2:
        """KVM_GET_SREGS2: as get_sregs, with the PDPTRs of PAE paging (``struct kvm_sregs2 *``; ``flags``:
        KVM_SREGS2_FLAGS_PDPTRS_VALID). Since Linux 5.14 (KVM_CAP_SREGS2)."""
        value: Sregs2 = self.get("KVM_GET_SREGS2", "struct kvm_sregs2")
        return value

    def set_sregs2(self, sregs: Sregs2) -> None:
        """KVM_SET_SREGS2."""
        self.put("KVM_SET_SREGS2", "struct kvm_sregs2", sregs)

    def get_fpu(self) -> Fpu:
        """KVM_GET_FPU: x87 and SSE (``struct kvm_fpu *``). KVM does not fill in ``mxcsr``; get_xsave has it."""
        value: Fpu = self.get("KVM_GET_FPU", "struct kvm_fpu")
        return value

    def set_fpu(self, fpu: Fpu) -> None:
        """KVM_SET_FPU."""
        self.put("KVM_SET_FPU", "struct kvm_fpu", fpu)

    def get_xsave(self) -> Xsave:
        """KVM_GET_XSAVE: the first 4 KiB of the XSAVE area (``struct kvm_xsave *``)."""
        value: Xsave = self.get("KVM_GET_XSAVE", "struct kvm_xsave")
        return value

    def set_xsave(self, xsave: Xsave | bytes | bytearray) -> None:
        """KVM_SET_XSAVE, of what get_xsave or get_xsave2 returned. ValueError: fewer bytes than 4096, or more than this
        machine's area has."""
        given: Any = xsave
        if not isinstance(xsave, (bytes, bytearray)):
            must_be("KVM_SET_XSAVE", "struct kvm_xsave", xsave)
            given = ffi.buffer(xsave)
        area = self._xsave_area()  # KVM reads all of it, however much the caller has
        if not XSAVE_MIN <= len(given) <= len(area):
            raise ValueError(f"{len(given)} bytes of XSAVE: this machine takes {XSAVE_MIN} to {len(area)}")
        area[: len(given)] = given
        self.ioctl("KVM_SET_XSAVE", ffi.from_buffer(area), f"{len(given)} bytes")

    def get_xsave2(self) -> bytearray:
        """KVM_GET_XSAVE2: the whole XSAVE area, of at least 4096 bytes. Since Linux 5.17."""
        area = self._xsave_area()
        self.ioctl("KVM_GET_XSAVE2", ffi.from_buffer(area), f"{len(area)} bytes")
        return area

    def _xsave_area(self) -> bytearray:
        """As large as KVM reads and writes it."""
        return bytearray(max(self.vm.check_extension("KVM_CAP_XSAVE2"), XSAVE_MIN))

    def get_xcrs(self) -> Xcrs:
        """KVM_GET_XCRS: the extended control registers (``struct kvm_xcrs *``)."""
        value: Xcrs = self.get("KVM_GET_XCRS", "struct kvm_xcrs")
        return value

    def set_xcrs(self, xcrs: Xcrs) -> None:
        """KVM_SET_XCRS."""
        self.put("KVM_SET_XCRS", "struct kvm_xcrs", xcrs)

    def get_debugregs(self) -> Debugregs:
        """KVM_GET_DEBUGREGS (``struct kvm_debugregs *``)."""
        value: Debugregs = self.get("KVM_GET_DEBUGREGS", "struct kvm_debugregs")
        return value

    def set_debugregs(self, debugregs: Debugregs) -> None:
        """KVM_SET_DEBUGREGS."""
        self.put("KVM_SET_DEBUGREGS", "struct kvm_debugregs", debugregs)

    def get_msrs(self, indices: Sequence[int]) -> dict[int, int]:
        """KVM_GET_MSRS: model-specific registers by index, up to the first that KVM does not support."""
        entries = [{"index": index} for index in listed("KVM_GET_MSRS", indices)]
        msrs = structure("KVM_GET_MSRS", "struct kvm_msrs", {"nmsrs": len(entries), "entries": entries})
        count = self.ioctl("KVM_GET_MSRS", msrs)
        return {msrs.entries[i].index: msrs.entries[i].data for i in range(count)}

    def set_msrs(self, values: Mapping[int, int]) -> int:
        """KVM_SET_MSRS, in this order; returns the number of registers that were set. KVM stops at the first register
        that it refuses."""
        if not hasattr(values, "items"):
            raise TypeError(f"KVM_SET_MSRS takes values by index, as a dict, not {type(values).__name__}")
        entries = [{"index": index, "data": value} for index, value in values.items()]
        registers = {"nmsrs": len(entries), "entries": entries}
        return self.send("KVM_SET_MSRS", "struct kvm_msrs", registers, f"{len(entries)} registers")

    def set_cpuid2(self, cpuid: Cpuid) -> None:
        """KVM_SET_CPUID2: the results of the CPUID instruction (``struct kvm_cpuid2 *``, of ffi.new). Before the first
        run. SpecError: it has no room for ``nent`` entries."""
        must_be("KVM_SET_CPUID2", "struct kvm_cpuid2", cpuid)
        has: Any = cpuid
        room = (ffi.sizeof(has[0]) - ffi.sizeof("struct kvm_cpuid2")) // ffi.sizeof("struct kvm_cpuid_entry2")
        if cpuid.nent > room:
            raise SpecError("KVM_SET_CPUID2 nent", cpuid.nent, f"the structure has room for {room} entries")
        self.ioctl("KVM_SET_CPUID2", cpuid, f"{cpuid.nent} entries")

    def get_cpuid2(self, room: int = 256) -> Cpuid:
        """KVM_GET_CPUID2. ``room``: how many entries there may be at the most, up to CPUID_MAX."""
        if number("KVM_GET_CPUID2 room", room) > CPUID_MAX:
            raise SpecError("KVM_GET_CPUID2 room", room, f"is more than {CPUID_MAX} entries")
        value: Cpuid = structure("KVM_GET_CPUID2", "struct kvm_cpuid2", {"nent": room, "entries": room})
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
        self.put("KVM_SET_LAPIC", "struct kvm_lapic_state", lapic)

    def get_vcpu_events(self) -> Events:
        """KVM_GET_VCPU_EVENTS: pending exceptions, interrupts, NMIs (``struct kvm_vcpu_events *``)."""
        value: Events = self.get("KVM_GET_VCPU_EVENTS", "struct kvm_vcpu_events")
        return value

    def set_vcpu_events(self, events: Events) -> None:
        """KVM_SET_VCPU_EVENTS."""
        self.put("KVM_SET_VCPU_EVENTS", "struct kvm_vcpu_events", events)

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE: KVM_MP_STATE_RUNNABLE, _HALTED, _UNINITIALIZED ..."""
        return int(self.get("KVM_GET_MP_STATE", "struct kvm_mp_state").mp_state)

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE."""
        self.send("KVM_SET_MP_STATE", "struct kvm_mp_state", (state,), state)

    def set_guest_debug(
        self,
        *,
        single_step: bool = False,
        breakpoints: Sequence[int] = (),
        int3: bool = False,
        block_irq: bool = False,
    ) -> None:
        """KVM_SET_GUEST_DEBUG: a DebugExit after each instruction, at breakpoints (up to four addresses of rip), or at
        the instruction INT3 (software breakpoints: the caller writes 0xCC to memory); with none of these debugging is
        off. ``block_irq``: interrupts are blocked (since Linux 5.16; earlier kernels ignore it)."""
        breakpoints = listed("KVM_SET_GUEST_DEBUG breakpoints", breakpoints)
        if len(breakpoints) > 4:
            raise ValueError(f"{len(breakpoints)} hardware breakpoints: a processor has four")
        control = (lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_SINGLESTEP) if single_step else 0
        control |= (lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_USE_SW_BP) if int3 else 0
        control |= lib.KVM_GUESTDBG_BLOCKIRQ if block_irq else 0
        registers = [0] * 8
        if breakpoints:
            control |= lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_USE_HW_BP
            registers[: len(breakpoints)] = breakpoints
            registers[7] = 0x400 | sum(2 << 2 * i for i in range(len(breakpoints)))  # G0 to G3: break on execution
        values = {"control": control, "arch": {"debugreg": registers}}
        self.send("KVM_SET_GUEST_DEBUG", "struct kvm_guest_debug", values, f"{control:#x}")

    def translate(self, linear: int) -> int | None:
        """KVM_TRANSLATE: the guest physical address of a linear address, by the guest's page tables; None: not
        mapped."""
        value = structure("KVM_TRANSLATE", "struct kvm_translation", {"linear_address": linear})
        self.ioctl("KVM_TRANSLATE", value, f"{linear:#x}")
        return int(value.physical_address) if value.valid else None

    def get_tsc_khz(self) -> int:
        """KVM_GET_TSC_KHZ: the frequency of the guest's time stamp counter."""
        return self.ioctl_value("KVM_GET_TSC_KHZ")

    def set_tsc_khz(self, khz: int) -> None:
        """KVM_SET_TSC_KHZ. Another frequency than the host's needs KVM_CAP_TSC_CONTROL."""
        self.ioctl_value("KVM_SET_TSC_KHZ", khz)

    def kvmclock_ctrl(self) -> None:
        """KVM_KVMCLOCK_CTRL: tells a guest with kvmclock that it was paused, so that its watchdogs are patient."""
        self.ioctl_value("KVM_KVMCLOCK_CTRL")

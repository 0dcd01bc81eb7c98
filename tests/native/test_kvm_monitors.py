"""The ioctls of KVM that a small monitor uses beyond processors, memory and interrupts, each by its name."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bareguest import LOOP, MMIO, PAGE, START, Make, guests, irr, raw
from box import until

from minicontainer.errors import SpecError
from minicontainer.kvm import (
    CoalescedWrite,
    DebugExit,
    GuestMemory,
    HltExit,
    IoExit,
    Kvm,
    MsiRoute,
    MsrExit,
    MsrRange,
    PinRoute,
)
from minicontainer.kvm.capabilities import NUMBERS
from minicontainer.native import ffi, lib

pytestmark = pytest.mark.needs("kvm")


@pytest.fixture
def make() -> Iterator[Make]:
    with guests() as make:
        yield make


def test_capabilities_by_name_and_number() -> None:
    with Kvm() as kvm:
        by_name = kvm.check_extension("KVM_CAP_NR_VCPUS")
        assert kvm.check_extension("NR_VCPUS") == kvm.check_extension(9) == by_name
        assert kvm.check_extension(32767) == 0
        with pytest.raises(SpecError, match=r"NO_SUCH.*give its number"):
            kvm.check_extension("NO_SUCH")


def test_capabilities_have_the_numbers_of_the_header() -> None:
    header = Path("/usr/include/linux/kvm.h").read_text(encoding="utf-8")
    numbers = {m[1]: int(m[2]) for m in re.finditer(r"^#define (KVM_CAP_\w+)\s+(\d+)\b", header, re.M)}
    assert len(numbers) > 200
    assert {name: NUMBERS.get(name) for name in numbers if numbers[name] <= 244} == {
        name: number for name, number in numbers.items() if number <= 244
    }


def test_an_interrupt_is_routed_to_a_message(make: Make) -> None:
    guest = make(irqchip=True)
    lapic = guest.vcpu.get_lapic()
    ffi.buffer(lapic.regs)[0xF0:0xF4] = b"\xff\x01\0\0"  # spurious vector: enabled
    guest.vcpu.set_lapic(lapic)
    guest.vm.set_gsi_routing([PinRoute(4, "master", 4), MsiRoute(30, 0xFEE00000, 0x41)])
    guest.vm.irq_line(30, 1)
    assert raw(guest.vcpu.get_lapic())[0x220] & 2  # IRR: vectors 64 to 95
    guest.vm.irq_line(4, 1)
    assert irr(guest.vm) & 0x10
    with pytest.raises(ValueError, match="irqchip 'third'"):
        guest.vm.set_gsi_routing([PinRoute(4, "third", 4)])


PIC = bytes.fromhex("b011e620 b020e621 b004e621 b001e621 b000e621".replace(" ", ""))  # ICW1 to ICW4: vectors from 0x20


def test_an_interrupt_stays_until_it_is_acknowledged(make: Make) -> None:
    code = PIC + b"\xe6\x12\xfb" + LOOP  # out 0x12, al; sti; jmp to itself
    guest = make(code, irqchip=True)
    guest.vector(0x24, b"\xb0\x20\xe6\x20\xe6\x11\xcf")  # mov al, 0x20; out 0x20, al (EOI); out 0x11, al; iret
    with ExitStack() as stack:
        event, resample = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        stack.callback(os.close, event)
        stack.callback(os.close, resample)
        guest.vm.irqfd(event, 4, resamplefd=resample)
        assert guest.vcpu.run() == IoExit(0x12, 1, 1, True, b"\0")
        os.eventfd_write(event, 1)
        until(lambda: irr(guest.vm) & 0x10)
        assert guest.vcpu.run() == IoExit(0x11, 1, 1, True, b"\x20")
        assert os.eventfd_read(resample) == 1
        guest.vm.irqfd(event, 4, resamplefd=resample, deassign=True)


def test_software_breakpoints(make: Make) -> None:
    """A processor's INT3 is a DebugExit. Where KVM interprets the guest's code, and on the AMD processor that QEMU
    emulates, the guest's own handler gets it."""
    guest = make(b"\x40\xcc\x43\xf4")  # inc ax; int3; inc bx; hlt
    guest.vector(3, b"\xe6\x13\xf4")  # out 0x13, al; hlt
    told: list[str] = []
    guest.vcpu.watch = lambda call, *_: told.append(call)
    guest.vcpu.set_guest_debug(int3=True)
    assert told == ["KVM_SET_GUEST_DEBUG(0x10001)"]  # KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_SW_BP
    exit_ = guest.vcpu.run()
    if exit_ == IoExit(0x13, 1, 1, True, b"\x01"):
        return
    assert isinstance(exit_, DebugExit)
    assert (exit_.exception, exit_.rip) == (3, START + 1)
    regs = guest.vcpu.get_regs()
    regs.rip = START + 2
    guest.vcpu.set_regs(regs)
    assert guest.vcpu.run() == HltExit()
    assert guest.vcpu.get_regs().rbx == 1


def test_xsave2(make: Make) -> None:
    guest = make()
    guest.vcpu.set_cpuid2(guest.kvm.get_supported_cpuid())
    size = guest.vm.check_extension("KVM_CAP_XSAVE2")
    if not size:  # Linux before 5.17
        with pytest.raises(OSError, match="KVM_GET_XSAVE2"):
            guest.vcpu.get_xsave2()
        return
    area = guest.vcpu.get_xsave2()
    assert len(area) == size
    assert bytes(area[:PAGE]) == raw(guest.vcpu.get_xsave())[:PAGE]
    area[512] |= 2  # XSTATE_BV: SSE
    area[160:164] = b"xmm0"
    guest.vcpu.set_xsave(area)
    assert bytes(guest.vcpu.get_fpu().xmm[0])[:4] == b"xmm0"


def test_xsave_of_a_size_that_kvm_would_read_beyond(make: Make) -> None:
    vcpu = make().vcpu
    for size in (0, PAGE - 1, 1 << 20):
        with pytest.raises(ValueError, match=f"{size} bytes of XSAVE: this machine takes 4096 to "):
            vcpu.set_xsave(bytearray(size))
    vcpu.set_xsave(bytearray(PAGE))


def test_sregs2(make: Make) -> None:
    vcpu = make().vcpu
    sregs = vcpu.get_sregs2()
    assert (sregs.cs.limit, sregs.cr0, sregs.flags) == (vcpu.get_sregs().cs.limit, vcpu.get_sregs().cr0, 0)
    sregs.es.base, sregs.cr2 = 0x5000, 0x1234
    vcpu.set_sregs2(sregs)
    assert (vcpu.get_sregs().es.base, vcpu.get_sregs2().cr2) == (0x5000, 0x1234)


def test_kvmclock_ctrl_is_for_guests_with_a_kvmclock(make: Make) -> None:
    vcpu = make().vcpu
    with pytest.raises(OSError, match=r"KVM_KVMCLOCK_CTRL\(\): Invalid argument"):
        vcpu.kvmclock_ctrl()
    assert vcpu.set_msrs({0x4B564D01: 0x3000 | 1}) == 1  # MSR_KVM_SYSTEM_TIME_NEW: enabled, at 0x3000
    assert vcpu.run() == HltExit()
    vcpu.kvmclock_ctrl()


def test_dirty_pages_stay_until_they_are_cleared(make: Make) -> None:
    guest = make(b"\xa2\x00\x30\xa2\x00\x50\xf4")  # mov [0x3000], al; mov [0x5000], al; hlt
    guest.vm.enable_cap("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", 1)
    guest.vm.set_user_memory_region(0, 0, MMIO, guest.memory.host, lib.KVM_MEM_LOG_DIRTY_PAGES)
    assert guest.exits() == [HltExit()]
    for _ in range(2):
        assert {3, 5} <= set(guest.vm.get_dirty_log(0))
    guest.vm.clear_dirty_log(0, [3])
    assert 3 not in guest.vm.get_dirty_log(0)
    assert 5 in guest.vm.get_dirty_log(0)
    with pytest.raises(ValueError, match="page 8: the slot has 8"):
        guest.vm.clear_dirty_log(0, [8])


def has_dirty_ring() -> int:
    with Kvm() as kvm:
        return kvm.check_extension("KVM_CAP_DIRTY_LOG_RING")


def test_no_dirty_ring_where_none_was_enabled(make: Make) -> None:
    guest = make()
    with pytest.raises(ValueError, match="dirty ring: there is none"):
        guest.vm.dirty_ring(guest.vcpu)


def test_a_dirty_ring() -> None:
    with ExitStack() as stack:
        memory = GuestMemory(MMIO)
        stack.callback(memory.close)
        kvm = stack.enter_context(Kvm())
        vm = stack.enter_context(kvm.create_vm())
        if not has_dirty_ring():  # Intel's processors without EPT, for example
            with pytest.raises(OSError, match="KVM_ENABLE_CAP"):
                vm.enable_cap("KVM_CAP_DIRTY_LOG_RING", 16 * 1024)
            return
        vm.enable_cap("KVM_CAP_DIRTY_LOG_RING", 16 * 1024)
        vm.set_user_memory_region(0, 0, MMIO, memory.host, lib.KVM_MEM_LOG_DIRTY_PAGES)
        vcpu = stack.enter_context(vm.create_vcpu())
        ring = stack.enter_context(vm.dirty_ring(vcpu))
        sregs = vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        vcpu.set_sregs(sregs)
        memory.write(START, b"\xa2\x00\x30\xa2\x00\x50\xf4")  # mov [0x3000], al; mov [0x5000], al; hlt
        for _ in range(2):
            vcpu.set_regs(ffi.new("struct kvm_regs *", {"rip": START, "rflags": 2}))
            assert vcpu.run() == HltExit()
            written = ring.take()
            assert {(0, 3), (0, 5)} <= set(written)
            assert ring.take() == []
            assert vm.reset_dirty_rings() == len(written)
    with pytest.raises(ValueError, match="closed"):
        ring.take()


@pytest.mark.parametrize(
    ("code", "where", "pio"),
    [
        (b"\xe6\x10\x40\xe6\x10\xf4", 0x10, True),  # out 0x10, al; inc ax; out 0x10, al; hlt
        (b"\xa2\x00\x80\x40\xa2\x00\x80\xf4", MMIO, False),  # mov [0x8000], al; inc ax; the same; hlt
    ],
)
def test_writes_are_coalesced(make: Make, code: bytes, where: int, pio: bool) -> None:
    guest = make(code)
    ring = guest.vm.coalesced_ring(guest.vcpu)
    guest.vm.register_coalesced_mmio(where, 1, pio=pio)
    guest.execute(code, rax=7)
    assert guest.exits() == [HltExit()]
    assert ring.take() == [CoalescedWrite(where, b"\x07", pio), CoalescedWrite(where, b"\x08", pio)]
    assert ring.take() == []
    guest.vm.unregister_coalesced_mmio(where, 1, pio=pio)
    guest.execute(code)
    assert len(guest.exits()) == 3
    guest.vcpu.close()
    with pytest.raises(ValueError, match="closed"):
        ring.take()


SYSENTER_CS, SYSENTER_ESP = 0x174, 0x175
RDMSR = b"\x66\xb9\x74\x01\0\0\x0f\x32\xe6\x10\xf4"  # mov ecx, 0x174; rdmsr; out 0x10, al; hlt


def test_an_msr_is_answered_by_the_caller(make: Make) -> None:
    guest = make(RDMSR)
    guest.vm.enable_cap("KVM_CAP_X86_USER_SPACE_MSR", lib.KVM_MSR_EXIT_REASON_FILTER)
    guest.vm.set_msr_filter([MsrRange(SYSENTER_CS, 2, [SYSENTER_ESP])])
    assert guest.vcpu.run() == MsrExit(SYSENTER_CS, False, 0)
    guest.vcpu.answer_msr(0x5A)
    assert guest.exits() == [IoExit(0x10, 1, 1, True, b"\x5a"), HltExit()]
    guest.execute(RDMSR.replace(b"\x74", b"\x75"))
    assert guest.exits() == [IoExit(0x10, 1, 1, True, b"\0"), HltExit()]  # KVM answers
    guest.vector(13, b"\xe6\x13\xf4")  # out 0x13, al; hlt
    guest.execute(RDMSR)
    assert guest.vcpu.run() == MsrExit(SYSENTER_CS, False, 0)
    guest.vcpu.answer_msr(fault=True)
    assert isinstance(exit_ := guest.vcpu.run(), IoExit)
    assert exit_.port == 0x13  # the handler of #GP
    guest.vm.set_msr_filter([])  # every MSR again
    guest.execute(RDMSR)
    assert isinstance(guest.vcpu.run(), IoExit)


def test_filters_that_cannot_be(make: Make) -> None:
    vm = make().vm
    with pytest.raises(ValueError, match=r"MSR 0x176: is outside of its range, 2 from 0x174 on"):
        vm.set_msr_filter([MsrRange(SYSENTER_CS, 2, [0x176])])
    with pytest.raises(ValueError, match="17 ranges of MSRs: KVM takes 16"):
        vm.set_msr_filter([MsrRange(SYSENTER_CS, 1)] * 17)


def test_memory_of_a_guest_memfd() -> None:
    flags = lib.GUEST_MEMFD_FLAG_MMAP | lib.GUEST_MEMFD_FLAG_INIT_SHARED
    with ExitStack() as stack:
        kvm = stack.enter_context(Kvm())
        vm = stack.enter_context(kvm.create_vm())
        if vm.check_extension("KVM_CAP_GUEST_MEMFD_FLAGS") & flags != flags:  # before Linux 6.18
            with pytest.raises(OSError, match=r"KVM_CREATE_GUEST_MEMFD\(0x8000 bytes\)"):
                vm.create_guest_memfd(MMIO, flags)
            return
        file = stack.enter_context(vm.create_guest_memfd(MMIO, flags))
        shared = stack.enter_context(mmap.mmap(file.fd, MMIO))
        shared[START : START + 4] = b"\xa2\x00\x30\xf4"  # mov [0x3000], al; hlt
        with ffi.from_buffer(shared) as view:
            host = int(ffi.cast("uintptr_t", view))
        vm.set_user_memory_region(0, 0, MMIO, host, guest_memfd=file.fd)
        with vm.create_vcpu() as vcpu:
            sregs = vcpu.get_sregs()
            sregs.cs.base = sregs.cs.selector = 0
            vcpu.set_sregs(sregs)
            vcpu.set_regs(ffi.new("struct kvm_regs *", {"rip": START, "rflags": 2, "rax": 0x5A}))
            assert vcpu.run() == HltExit()
        assert shared[0x3000] == 0x5A


def test_memory_attributes_are_for_machines_with_private_memory(make: Make) -> None:
    vm = make().vm
    private = lib.KVM_MEMORY_ATTRIBUTE_PRIVATE
    assert vm.check_extension("KVM_CAP_MEMORY_ATTRIBUTES") & private == 0  # a machine of the default type
    with pytest.raises(OSError, match=r"KVM_SET_MEMORY_ATTRIBUTES\(0x0, 0x1000 bytes, 0x8\)"):
        vm.set_memory_attributes(0, PAGE, private)


def test_kvms_own_statistics(make: Make) -> None:
    guest = make(b"\xe6\x10\xf4")  # out 0x10, al; hlt
    before = guest.vcpu.get_stats()
    assert len(guest.exits()) == 2
    after = guest.vcpu.get_stats()
    assert after["exits"].value > before["exits"].value
    assert after["exits"].type == "cumulative"
    assert (after["halt_wait_ns"].unit, after["halt_wait_ns"].scale) == ("seconds", 1e-9)
    histogram = after["halt_wait_hist"]
    assert (histogram.type, len(histogram.values) > 8) == ("log-histogram", True)
    assert {"max_mmu_page_hash_collisions", "remote_tlb_flush"} <= set(guest.vm.get_stats())


TSC_OFFSET = (lib.KVM_VCPU_TSC_CTRL, lib.KVM_VCPU_TSC_OFFSET)


@pytest.mark.needs("kvm-hardware")
def test_an_attribute_of_a_processor(make: Make) -> None:
    vcpu = make().vcpu
    vcpu.set_device_attr(*TSC_OFFSET, 2**63 + 5)
    assert vcpu.get_device_attr(*TSC_OFFSET) == 2**63 + 5


def test_attributes_of_a_processor_and_the_system(make: Make) -> None:
    guest = make()
    assert guest.vcpu.has_device_attr(*TSC_OFFSET)
    assert not guest.vcpu.has_device_attr(7, 7)
    assert not guest.vm.has_device_attr(7, 7)
    assert guest.kvm.get_device_attr(0, lib.KVM_X86_XCOMP_GUEST_SUPP) & 3 == 3  # x87 and SSE


def test_a_device(make: Make) -> None:
    """The only one of x86 is VFIO's, which a kernel may lack."""
    vm = make().vm
    try:
        vm.create_device(lib.KVM_DEV_TYPE_VFIO, test=True)
    except OSError as error:
        assert error.errno == errno.ENODEV  # noqa: PT017
        with pytest.raises(OSError, match=r"KVM_CREATE_DEVICE\(4\)"):
            vm.create_device(lib.KVM_DEV_TYPE_VFIO)
        return
    device = vm.create_device(lib.KVM_DEV_TYPE_VFIO)
    assert device is not None
    with device:
        assert not device.has_device_attr(7, 7)


def test_the_first_processor_and_its_frequency() -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        vm.set_boot_cpu_id(1)
        with vm.create_vcpu(0) as waits, vm.create_vcpu(1) as first:
            assert waits.get_mp_state() == lib.KVM_MP_STATE_UNINITIALIZED
            assert first.get_mp_state() == lib.KVM_MP_STATE_RUNNABLE
            first.set_tsc_khz(first.get_tsc_khz())
            with pytest.raises(OSError, match=r"KVM_SET_BOOT_CPU_ID\(2\)") as caught:
                vm.set_boot_cpu_id(2)
            assert caught.value.errno == errno.EBUSY

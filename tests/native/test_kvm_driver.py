"""Kvm, Vm and Vcpu: every ioctl by its name, with guests of a few bytes in real mode, written out."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bareguest import HLT, LOOP, MMIO, PAGE, START, Make, guests, irr, raw
from box import until

from minicontainer.errors import StepError, UnsupportedError
from minicontainer.kvm import (
    DebugExit,
    Exit,
    FailEntryExit,
    GuestMemory,
    HltExit,
    HypercallExit,
    InternalErrorExit,
    InterruptedExit,
    IoExit,
    Kvm,
    MmioExit,
    MsrExit,
    ShutdownExit,
    SystemEventExit,
    UnknownExit,
    Vcpu,
    x86,
)
from minicontainer.kvm import exits as exit_types
from minicontainer.kvm.system import why_unusable
from minicontainer.native import ffi, lib

pytestmark = pytest.mark.needs("kvm")


@pytest.fixture
def make() -> Iterator[Make]:
    with guests() as make:
        yield make


# ---- Kvm


def test_the_system() -> None:
    with Kvm() as kvm:
        assert kvm.get_api_version() == lib.KVM_API_VERSION
        assert kvm.check_extension("KVM_CAP_USER_MEMORY") == 1
        assert 1 <= kvm.check_extension("KVM_CAP_NR_VCPUS") <= kvm.check_extension("KVM_CAP_MAX_VCPUS")
        assert kvm.get_vcpu_mmap_size() % PAGE == 0
        assert kvm.fileno() == kvm.fd > 2


def test_cpuid_and_msrs_that_are_supported() -> None:
    with Kvm() as kvm:
        cpuid, msrs = kvm.get_supported_cpuid(), kvm.get_msr_index_list()
    functions = [cpuid.entries[i].function for i in range(cpuid.nent)]
    assert {0, 1, 0x80000000} <= set(functions)
    assert len(msrs) == len(set(msrs)) > 10
    assert 0x10 in msrs  # the time stamp counter


def test_a_buffer_for_cpuid_that_is_too_small_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    with Kvm() as kvm:
        wanted, rooms, true_ioctl = kvm.get_supported_cpuid().nent, [], kvm.ioctl

        def ioctl(name: str, argument: Any, *what: object) -> int:
            rooms.append(argument.nent)
            if argument.nent < 400:  # as a processor of tomorrow would have it
                raise StepError(errno.E2BIG, name)
            return true_ioctl(name, argument, *what)

        monkeypatch.setattr(kvm, "ioctl", ioctl)
        assert kvm.get_supported_cpuid().nent == wanted
    assert rooms == [128, 256, 512]


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.ENOENT, "there is none", "kvm_intel or kvm_amd"),
        (errno.ENXIO, "no driver", "firmware"),
        (errno.EACCES, "", ""),
        (errno.EMFILE, "Too many open files", ""),
    ],
)
def test_why_there_is_no_kvm(number: int, reason: str, remedy: str) -> None:
    why, what = why_unusable(OSError(number, ""))
    assert reason in why
    assert remedy in what


def test_who_may_use_it_is_said(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o660)
    why, remedy = why_unusable(PermissionError(errno.EACCES, ""), str(device))
    assert why.startswith("it is for group ")
    assert remedy.startswith("as root: usermod -aG ")
    device.chmod(0o600)
    assert "alone (mode 600)" in why_unusable(PermissionError(errno.EACCES, ""), str(device))[0]


def test_no_device_is_a_refusal_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"there is none \(load kvm_intel or kvm_amd"):
        Kvm(str(tmp_path / "kvm"))
    with pytest.raises(UnsupportedError, match="Is a directory"):
        Kvm(str(tmp_path))


def test_what_is_not_kvm_fails_by_the_name_of_the_ioctl() -> None:
    with Kvm("/dev/null") as kvm, pytest.raises(StepError, match=r"^KVM_GET_API_VERSION\(\): ") as caught:
        kvm.get_api_version()
    assert caught.value.errno == errno.ENOTTY


def test_a_machine_that_cannot_have_processors_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of struct kvm_run is asked after the machine was made: its descriptor may not be lost."""
    with Kvm() as kvm:
        monkeypatch.setattr(kvm, "get_vcpu_mmap_size", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kvm.create_vm()


def test_a_watch_is_called_for_every_ioctl() -> None:
    told: list[tuple[str, int, int, int]] = []
    with Kvm(watch=lambda *call: told.append(call)) as kvm, kvm.create_vm() as vm:
        with vm.create_vcpu() as vcpu:
            vcpu.get_regs()
        with pytest.raises(OSError, match="KVM_GET_PIT2"):
            vm.get_pit2()
    calls = [call for call, *_ in told]
    size = f"{kvm.get_vcpu_mmap_size():#x}"
    assert calls == [
        "open(/dev/kvm, O_RDWR|O_CLOEXEC)", "KVM_CREATE_VM()", "KVM_GET_VCPU_MMAP_SIZE()", "KVM_CREATE_VCPU()",
        f"mmap(vcpu, {size})", "KVM_GET_REGS()", "KVM_GET_PIT2()",
    ]  # fmt: skip
    assert all(start <= end for _, start, end, _ in told)
    assert [result < 0 for *_, result in told] == [False] * 6 + [True]


def test_descriptors_are_closed_once_and_not_inherited(make: Make) -> None:
    guest = make()
    assert not any(os.get_inheritable(d.fd) for d in (guest.kvm, guest.vm, guest.vcpu))
    vcpu, page = guest.vcpu, guest.memory
    vcpu.close()
    vcpu.close()
    assert (vcpu.fd, page.size) == (-1, MMIO)
    for call in (vcpu.run, vcpu.get_regs):
        with pytest.raises(OSError, match=r"^KVM_\w+\(\): Bad file descriptor"):
            call()
    for use in (vcpu.immediate_exit, vcpu.sync_regs):  # of memory that is not there any more
        with pytest.raises(ValueError, match="closed"):
            use()


# ---- Vm: processors and memory


def test_a_number_of_a_processor_is_taken_once(make: Make) -> None:
    with pytest.raises(FileExistsError, match=r"^KVM_CREATE_VCPU"):
        make().vm.create_vcpu(0)


def test_processors_share_memory_and_nothing_else(make: Make) -> None:
    guest = make(b"\xa3\x00\x20\xf4")  # mov [0x2000], ax; hlt
    with guest.vm.create_vcpu(1) as second:
        second.set_sregs(guest.vcpu.get_sregs())
        second.set_regs(ffi.new("struct kvm_regs *", {"rip": START, "rflags": 2, "rax": 0xBEEF}))
        assert second.run() == HltExit()
    assert guest.memory[0x2000:0x2002] == b"\xef\xbe"
    assert guest.vcpu.get_regs().rip == START


def test_slots_must_not_overlap_and_can_be_taken_away(make: Make) -> None:
    guest = make(b"\xa0\x00\x70\xf4")  # mov al, [0x7000]; hlt
    with pytest.raises(FileExistsError, match=r"^KVM_SET_USER_MEMORY_REGION\(slot 1, 0x7000, 0x1000 bytes\)"):
        guest.vm.set_user_memory_region(1, 0x7000, PAGE, guest.memory.host)
    guest.vm.set_user_memory_region(0, 0, 0, 0)
    guest.vm.set_user_memory_region(0, 0, 0x7000, guest.memory.host)
    exit_ = guest.vcpu.run()
    assert isinstance(exit_, MmioExit)
    assert (exit_.address, exit_.size, exit_.write) == (0x7000, 1, False)


def test_a_read_only_slot(make: Make) -> None:
    """Reads are memory's, writes come out."""
    guest = make(
        b"\xa0\x00\x60\xa2\x01\x60\xa0\x01\x60\xf4"
    )  # mov al, [0x6000]; mov [0x6001], al; mov al, [0x6001]; hlt
    guest.memory.write(0x6000, b"RO")
    guest.vm.set_user_memory_region(0, 0, 0, 0)
    guest.vm.set_user_memory_region(0, 0, 0x6000, guest.memory.host)
    guest.vm.set_user_memory_region(1, 0x6000, 0x2000, guest.memory.host + 0x6000, lib.KVM_MEM_READONLY)
    assert guest.exits() == [MmioExit(0x6001, 1, True, b"R"), HltExit()]
    assert guest.memory[0x6000:0x6002] == b"RO"
    assert guest.vcpu.get_regs().rax & 0xFF == ord("O")


def test_dirty_log(make: Make) -> None:
    guest = make(b"\xa2\x00\x30\xa2\x00\x50\xf4")  # mov [0x3000], al; mov [0x5000], al; hlt
    guest.vm.set_user_memory_region(0, 0, MMIO, guest.memory.host, lib.KVM_MEM_LOG_DIRTY_PAGES)
    assert guest.exits() == [HltExit()]
    written = guest.vm.get_dirty_log(0)
    assert set(written) - {1} == {3, 5}  # what was only read may be told too: page 1, the code
    assert guest.vm.get_dirty_log(0) == []
    guest.execute(b"\xa2\x00\x50\xf4")
    guest.exits()
    assert set(guest.vm.get_dirty_log(0)) - {1} == {5}


def test_a_dirty_log_of_more_than_one_word(make: Make) -> None:
    """70 pages are two words; KVM writes both, whatever the caller thinks."""
    guest = make(b"\xa2\x00\x00\xf4")  # mov [0], al; hlt
    with ExitStack() as stack:
        more = GuestMemory(70 * PAGE)
        stack.callback(more.close)
        stack.callback(guest.vm.set_user_memory_region, 1, 0, 0, 0)
        guest.vm.set_user_memory_region(1, 0x100000, 70 * PAGE, more.host, lib.KVM_MEM_LOG_DIRTY_PAGES)
        for page in (0, 69):
            sregs = guest.vcpu.get_sregs()
            sregs.ds.base = 0x100000 + page * PAGE
            guest.vcpu.set_sregs(sregs)
            guest.execute(b"\xa2\x00\x00\xf4")
            assert guest.exits() == [HltExit()]
        assert guest.vm.get_dirty_log(1) == [0, 69]


# ---- Vm: interrupts and clocks


def test_irq_line_raises_a_line_of_the_pic(make: Make) -> None:
    vm = make(irqchip=True).vm
    assert irr(vm) & 0x10 == 0
    vm.irq_line(4, 1)
    assert irr(vm) & 0x10
    vm.irq_line(4, 0)
    with pytest.raises(FileExistsError, match="KVM_CREATE_IRQCHIP"):
        vm.create_irqchip()


def test_irqfd_raises_an_interrupt(make: Make) -> None:
    vm = make(irqchip=True).vm
    event = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        vm.irqfd(event, 3)
        os.eventfd_write(event, 1)
        until(lambda: irr(vm) & 8)
        vm.irqfd(event, 3, deassign=True)
        os.eventfd_write(event, 1)
        assert os.eventfd_read(event) == 1  # KVM does not take it any more
    finally:
        os.close(event)


def test_irqfd_needs_an_irqchip(make: Make) -> None:
    event = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        with pytest.raises(OSError, match="KVM_IRQFD") as caught:
            make().vm.irqfd(event, 3)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(event)


@pytest.mark.parametrize(
    ("code", "where", "pio"),
    [
        (b"\xe6\x10\xf4", 0x10, True),  # out 0x10, al; hlt
        (b"\xa2\x00\x80\xf4", MMIO, False),  # mov [0x8000], al; hlt
    ],
)
def test_ioeventfd_is_no_exit(make: Make, code: bytes, where: int, pio: bool) -> None:
    guest = make(code)
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        guest.vm.ioeventfd(event, where, 1, pio=pio, value=7)
        guest.execute(code, rax=7)
        assert guest.exits() == [HltExit()]
        assert os.eventfd_read(event) == 1
        guest.execute(code, rax=8)  # another value is an exit
        assert len(guest.exits()) == 2
        guest.vm.ioeventfd(event, where, 1, pio=pio, value=7, deassign=True)
        guest.execute(code, rax=7)
        assert len(guest.exits()) == 2
        with pytest.raises(BlockingIOError):
            os.eventfd_read(event)
    finally:
        os.close(event)


def test_signal_msi_is_delivered_to_a_local_apic(make: Make) -> None:
    guest = make(irqchip=True)
    lapic = guest.vcpu.get_lapic()
    ffi.buffer(lapic.regs)[0xF0:0xF4] = b"\xff\x01\0\0"  # spurious vector: enabled
    guest.vcpu.set_lapic(lapic)
    assert guest.vm.signal_msi(0xFEE00000, 0x41) == 1
    assert raw(guest.vcpu.get_lapic())[0x220] & 2  # IRR: vectors 64 to 95


def test_a_capability_is_enabled(make: Make) -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.enable_cap("KVM_CAP_SPLIT_IRQCHIP", 24)
        with pytest.raises(FileExistsError, match=r"KVM_ENABLE_CAP\(.*24"):
            vm.enable_cap("KVM_CAP_SPLIT_IRQCHIP", 24)
        assert vm.check_extension("KVM_CAP_SPLIT_IRQCHIP") == 1


def test_addresses_for_intel_come_before_processors(make: Make) -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vm.set_tss_addr(0xFFFBD000)
        vm.set_identity_map_addr(0xFFFBC000)
        with vm.create_vcpu(), pytest.raises(OSError, match=r"KVM_SET_IDENTITY_MAP_ADDR\(0xfffbc000\)"):
            vm.set_identity_map_addr(0xFFFBC000)


@pytest.mark.parametrize("chip", ["master", "slave", "ioapic"])
def test_irqchips_give_and_take_their_state(make: Make, chip: str) -> None:
    vm = make(irqchip=True).vm
    state = vm.get_irqchip(chip)
    if chip != "ioapic":
        ffi.buffer(state)[10:11] = b"\x5a"  # struct kvm_pic_state: imr
    vm.set_irqchip(state)
    assert raw(vm.get_irqchip(chip)) == raw(state)


def test_pit(make: Make) -> None:
    vm = make(irqchip=True).vm
    with pytest.raises(OSError, match="KVM_GET_PIT2"):
        vm.get_pit2()
    vm.create_pit2(lib.KVM_PIT_SPEAKER_DUMMY)
    state = vm.get_pit2()
    ffi.buffer(state)[24:26] = b"\x34\x12"  # struct kvm_pit_channel_state of channel 1: count
    vm.set_pit2(state)
    assert raw(vm.get_pit2())[24:26] == b"\x34\x12"


def test_clock(make: Make) -> None:
    vm = make().vm
    vm.set_clock(10**15)
    first = vm.get_clock().clock
    assert 10**15 <= first <= vm.get_clock().clock < 10**15 + 10**12


# ---- Vcpu: state


def test_regs(make: Make) -> None:
    vcpu = make().vcpu
    names = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
    values = {name: 0x0123456789ABCD00 + i for i, name in enumerate(names)}
    vcpu.set_regs(ffi.new("struct kvm_regs *", {**values, "rflags": 2}))
    regs = vcpu.get_regs()
    assert {name: getattr(regs, name) for name in names} == values
    assert regs.rflags == 2
    assert {name: getattr(regs, name) for name in dir(regs)} == {**values, "rflags": 2}


def test_sregs(make: Make) -> None:
    vcpu = make().vcpu
    sregs = vcpu.get_sregs()
    sregs.es.base, sregs.es.selector, sregs.cr2, sregs.gdt.base, sregs.idt.limit = 0x5000, 0x500, 0x1234, 0x6000, 0x3FF
    vcpu.set_sregs(sregs)
    assert raw(vcpu.get_sregs()) == raw(sregs)


def test_fpu(make: Make) -> None:
    vcpu = make().vcpu
    fpu = vcpu.get_fpu()
    fpu.fcw, fpu.xmm[3] = 0x27F, bytes(range(16))
    vcpu.set_fpu(fpu)
    again = vcpu.get_fpu()
    assert (again.fcw, bytes(again.xmm[3])) == (0x27F, bytes(range(16)))


def test_xsave_and_xcrs(make: Make) -> None:
    guest = make()
    guest.vcpu.set_cpuid2(guest.kvm.get_supported_cpuid())
    xcrs = ffi.new("struct kvm_xcrs *", {"nr_xcrs": 1, "xcrs": [{"xcr": 0, "value": 3}]})
    guest.vcpu.set_xcrs(xcrs)
    assert [guest.vcpu.get_xcrs().xcrs[0].value, guest.vcpu.get_xcrs().nr_xcrs] == [3, 1]
    xsave = guest.vcpu.get_xsave()
    xsave.region[128] |= 2  # XSTATE_BV: SSE (Intel SDM volume 1, "XSAVE Header")
    xsave.region[40:44] = [1, 2, 3, 4]  # xmm0
    guest.vcpu.set_xsave(xsave)
    assert list(guest.vcpu.get_xsave().region[40:44]) == [1, 2, 3, 4]
    assert bytes(guest.vcpu.get_fpu().xmm[0]) == bytes(ffi.buffer(xsave.region))[160:176]


def test_msrs(make: Make) -> None:
    vcpu = make().vcpu
    sysenter_cs, sysenter_esp, nobody = 0x174, 0x175, 0x4FFFFFFF
    assert vcpu.set_msrs({sysenter_cs: 8, sysenter_esp: 0x7000}) == 2
    assert vcpu.get_msrs([sysenter_cs, sysenter_esp]) == {sysenter_cs: 8, sysenter_esp: 0x7000}
    assert vcpu.set_msrs({sysenter_cs: 16, nobody: 1, sysenter_esp: 1}) == 1
    assert vcpu.get_msrs([sysenter_esp, nobody, sysenter_cs]) == {sysenter_esp: 0x7000}
    assert vcpu.get_msrs([]) == {}


def test_the_guest_reads_the_cpuid_that_was_set(make: Make) -> None:
    guest = make(b"\x66\xb8\x01\0\0\0\x0f\xa2\xf4")  # mov eax, 1; cpuid; hlt
    cpuid = guest.kvm.get_supported_cpuid()
    leaf = next(cpuid.entries[i] for i in range(cpuid.nent) if cpuid.entries[i].function == 1)
    leaf.ebx = 0x5A000000 | leaf.ebx & 0xFFFF
    guest.vcpu.set_cpuid2(cpuid)
    kept = guest.vcpu.get_cpuid2()  # without leaves of features that the processor has and KVM lacks, such as AMX
    assert kept.nent <= cpuid.nent
    assert [e.ebx >> 24 for e in (kept.entries[i] for i in range(kept.nent)) if e.function == 1] == [0x5A]
    assert guest.exits() == [HltExit()]
    assert guest.vcpu.get_regs().rbx & 0xFF000000 == 0x5A000000


def test_lapic_is_there_with_an_irqchip_alone(make: Make) -> None:
    with pytest.raises(OSError, match=r"KVM_GET_LAPIC\(\): Invalid argument"):
        make().vcpu.get_lapic()
    vcpu = make(irqchip=True).vcpu
    lapic = vcpu.get_lapic()
    ffi.buffer(lapic.regs)[0x80:0x84] = b"\x30\0\0\0"  # task priority
    vcpu.set_lapic(lapic)
    assert raw(vcpu.get_lapic())[0x80] == 0x30


def test_vcpu_events(make: Make) -> None:
    """An NMI that was injected is among the events, and is taken back."""
    vcpu = make().vcpu
    none = vcpu.get_vcpu_events()
    vcpu.nmi()
    pending = vcpu.get_vcpu_events()
    assert raw(pending) != raw(none)
    vcpu.set_vcpu_events(none)
    assert vcpu.run() == HltExit()


def test_debugregs(make: Make) -> None:
    vcpu = make().vcpu
    registers = vcpu.get_debugregs()
    registers.db[0:4] = [0x1000, 0x2000, 0x3000, 0x4000]
    vcpu.set_debugregs(registers)
    assert list(vcpu.get_debugregs().db) == [0x1000, 0x2000, 0x3000, 0x4000]


def test_mp_state(make: Make) -> None:
    guest = make(irqchip=True)
    with guest.vm.create_vcpu(1) as second:
        assert guest.vcpu.get_mp_state() == lib.KVM_MP_STATE_RUNNABLE
        assert second.get_mp_state() == lib.KVM_MP_STATE_UNINITIALIZED
        second.set_mp_state(lib.KVM_MP_STATE_HALTED)
        assert second.get_mp_state() == lib.KVM_MP_STATE_HALTED


def test_translate_and_tsc(make: Make) -> None:
    vcpu = make().vcpu
    assert vcpu.translate(0x1234) == 0x1234  # no paging
    assert vcpu.get_tsc_khz() > 1000


# ---- Vcpu: running


def test_an_immediate_exit_executes_nothing(make: Make) -> None:
    vcpu = make().vcpu
    vcpu.immediate_exit()
    assert vcpu.run() == InterruptedExit()
    assert vcpu.get_regs().rip == START
    vcpu.immediate_exit(False)
    assert vcpu.run() == HltExit()


def test_an_immediate_exit_finishes_what_was_begun(make: Make) -> None:
    guest = make(b"\xe4\x10\xf4")  # in al, 0x10; hlt
    exit_ = guest.vcpu.run()
    assert isinstance(exit_, IoExit)
    exit_.data[:] = b"Q"
    guest.vcpu.immediate_exit()
    assert guest.vcpu.run() == InterruptedExit()
    regs = guest.vcpu.get_regs()
    assert (regs.rax & 0xFF, regs.rip) == (ord("Q"), START + 2)


def test_sync_regs(make: Make) -> None:
    guest = make(b"\x40\xe6\x10\xe6\x11\xf4")  # inc ax; out 0x10, al; out 0x11, al; hlt
    kept = guest.vcpu.sync_regs(lib.KVM_SYNC_X86_REGS | lib.KVM_SYNC_X86_SREGS)
    first = guest.vcpu.run()
    assert isinstance(first, IoExit)
    assert first.data == b"\x01"
    assert kept.regs.rax == 1
    assert kept.sregs.cr0 == guest.vcpu.get_sregs().cr0
    guest.vcpu.immediate_exit()  # finish the OUT: its registers are still the exit's
    assert guest.vcpu.run() == InterruptedExit()
    guest.vcpu.immediate_exit(False)
    kept.regs.rax = 0x55
    guest.vcpu.sync_regs(0, lib.KVM_SYNC_X86_REGS)
    second = guest.vcpu.run()
    assert isinstance(second, IoExit)
    assert second.data == b"\x55"


def test_single_step(make: Make) -> None:
    guest = make(b"\x40\x90\x43\xf4")  # inc ax; nop; inc bx; hlt
    guest.vcpu.set_guest_debug(single_step=True)
    seen = [guest.vcpu.run() for _ in range(3)]
    assert all(isinstance(exit_, DebugExit) and exit_.exception == 1 for exit_ in seen)
    assert [exit_.rip for exit_ in seen if isinstance(exit_, DebugExit)] == [START + 1, START + 2, START + 3]
    guest.vcpu.set_guest_debug()
    assert guest.vcpu.run() == HltExit()
    assert guest.vcpu.get_regs().rbx == 1


def test_hardware_breakpoints(make: Make) -> None:
    """The rig's emulated AMD does not deliver them."""
    guest = make(b"\x40\x90\x43\xf4")  # inc ax; nop; inc bx; hlt
    guest.vcpu.set_guest_debug(breakpoints=[START + 2])
    exit_ = guest.vcpu.run()
    if os.environ.get("RIG") == "1" and exit_ == HltExit():
        return
    assert isinstance(exit_, DebugExit)
    assert (exit_.rip, exit_.dr6 & 1) == (START + 2, 1)
    assert guest.vcpu.get_regs().rbx == 0
    guest.vcpu.set_guest_debug()
    assert guest.vcpu.run() == HltExit()


def test_a_processor_has_four_breakpoints(make: Make) -> None:
    vcpu = make().vcpu
    vcpu.set_guest_debug(breakpoints=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="5 hardware breakpoints"):
        vcpu.set_guest_debug(breakpoints=range(5))


def test_an_interrupt_is_delivered_when_the_guest_lets_it(make: Make) -> None:
    guest = make(b"\xfb\x90\xf4")  # sti; nop; hlt
    guest.vector(0x20, b"\xe6\x10\xf4")  # out 0x10, al; hlt
    assert guest.vcpu.run() == HltExit()
    guest.vcpu.interrupt(0x20)
    assert guest.exits() == [IoExit(0x10, 1, 1, True, b"\0"), HltExit()]


@pytest.mark.needs("kvm-hardware")
def test_an_nmi_is_delivered_always(make: Make) -> None:
    guest = make(b"\xfa\xf4\xf4")  # cli; hlt; hlt
    guest.vector(2, b"\xe6\x10\xf4")  # out 0x10, al; hlt
    assert guest.vcpu.run() == HltExit()
    guest.vcpu.nmi()
    assert guest.exits() == [IoExit(0x10, 1, 1, True, b"\0"), HltExit()]


def test_a_signal_ends_a_run(make: Make) -> None:
    guest = make(LOOP)
    main, handled = threading.get_ident(), []
    before = signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    try:
        timer.start()
        assert guest.vcpu.run() == InterruptedExit()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert handled == [1]
    assert guest.vcpu.get_regs().rip == START


def test_other_threads_go_on_while_a_guest_loops(make: Make) -> None:
    """KVM_RUN is entered with the GIL released: the thread that is to end it could not run otherwise."""
    guest = make(LOOP)
    main, counted = threading.get_ident(), []

    def count() -> None:
        for i in range(1000):
            counted.append(i)
        time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    thread = threading.Thread(target=count)
    try:
        thread.start()
        while len(counted) < 1000:
            guest.vcpu.immediate_exit(len(counted) == 1000)  # it may have counted already
            guest.vcpu.run()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert counted == list(range(1000))


# ---- exits


@pytest.mark.parametrize(
    ("code", "size"),
    [
        (b"\xee\xec", 1),  # out dx, al; in al, dx
        (b"\xef\xed", 2),  # out dx, ax; in ax, dx
        (b"\x66\xef\x66\xed", 4),  # out dx, eax; in eax, dx
    ],
)
def test_ports_of_every_size(make: Make, code: bytes, size: int) -> None:
    guest = make(code + HLT)
    guest.execute(code + HLT, rax=0x44332211, rdx=0x501)
    out = guest.vcpu.run()
    assert out == IoExit(0x501, size, 1, True, bytes.fromhex("11223344")[:size])
    read = guest.vcpu.run()
    assert isinstance(read, IoExit)
    assert (read.port, read.size, read.count, read.write) == (0x501, size, 1, False)
    read.data[:] = b"\xa5" * size
    assert guest.vcpu.run() == HltExit()
    mask = (1 << 8 * size) - 1
    assert guest.vcpu.get_regs().rax == 0x44332211 & ~mask | 0xA5A5A5A5 & mask


def test_written_data_survives_the_next_exit(make: Make) -> None:
    guest = make(b"\xb0\x41\xe6\x10\xb0\x42\xe6\x10\xf4")  # mov al, 'A'; out 0x10, al; mov al, 'B'; out 0x10, al; hlt
    assert [exit_.data for exit_ in guest.exits() if isinstance(exit_, IoExit)] == [b"A", b"B"]


def test_rep_outsb_moves_the_data_and_not_the_port(make: Make) -> None:
    """One exit of many items, or one of each."""
    code = b"\xf3\x6e\xf4"  # rep outsb; hlt
    guest = make(code)
    guest.memory.write(0x3000, b"string")
    guest.execute(code, rsi=0x3000, rcx=6, rdx=0x501)
    *writes, last = guest.exits()
    assert last == HltExit()
    assert b"".join(e.data for e in writes if isinstance(e, IoExit)) == b"string"
    assert sum(e.count for e in writes if isinstance(e, IoExit)) == 6
    assert {e.port for e in writes if isinstance(e, IoExit)} == {0x501}
    regs = guest.vcpu.get_regs()
    assert (regs.rsi, regs.rcx, regs.rdx) == (0x3006, 0, 0x501)


def test_rep_insw_fills_memory(make: Make) -> None:
    code = b"\xf3\x6d\xf4"  # rep insw; hlt
    guest = make(code)
    guest.execute(code, rdi=0x3000, rcx=4, rdx=0x501)
    number = 0
    while isinstance(exit_ := guest.vcpu.run(), IoExit):
        for item in range(exit_.count):
            number += 1
            exit_.data[2 * item : 2 * item + 2] = number.to_bytes(2, "little")
    assert exit_ == HltExit()
    assert guest.memory[0x3000:0x300A] == bytes.fromhex("0100 0200 0300 0400 0000")
    assert guest.vcpu.get_regs().rdi == 0x3008


@pytest.mark.parametrize(("store", "load", "size"), [(b"\xa2", b"\xa0", 1), (b"\xa3", b"\xa1", 2)])
def test_mmio(make: Make, store: bytes, load: bytes, size: int) -> None:
    code = store + b"\x10\x80" + load + b"\x20\x80" + HLT  # mov [0x8010], al or ax; mov al or ax, [0x8020]; hlt
    guest = make(code)
    guest.execute(code, rax=0x2211)
    assert guest.vcpu.run() == MmioExit(0x8010, size, True, b"\x11\x22"[:size])
    read = guest.vcpu.run()
    assert isinstance(read, MmioExit)
    assert (read.address, read.size, read.write) == (0x8020, size, False)
    read.data[:] = b"\xa5" * size
    assert guest.vcpu.run() == HltExit()
    assert guest.vcpu.get_regs().rax == (0x22A5 if size == 1 else 0xA5A5)


def test_a_triple_fault_is_a_shutdown(make: Make) -> None:
    """In protected mode: a real mode that is interpreted may not look at the table's limit."""
    guest = make(b"\x0f\x0b")  # ud2
    sregs = guest.vcpu.get_sregs()
    x86.protected(sregs, 0x3000)  # no interrupt table
    guest.vcpu.set_sregs(sregs)
    assert guest.exits() == [ShutdownExit()]


def test_code_where_no_memory_is_cannot_be_emulated(make: Make) -> None:
    guest = make(b"\xe9\xfd\x6f")  # jmp 0x8000
    exit_ = guest.vcpu.run()
    assert isinstance(exit_, InternalErrorExit)
    assert exit_.suberror == lib.KVM_INTERNAL_ERROR_EMULATION
    assert str(exit_).startswith("an instruction that KVM cannot emulate")


def decoded(reason: int, *words: int, first: int = 0, second: int = 0) -> Exit:
    """The exit in a struct kvm_run that was made by hand: its union is at 32; two 32-bit words, then 64-bit ones."""
    run = bytearray(PAGE)
    run[8:12] = reason.to_bytes(4, "little")
    union = (
        first.to_bytes(4, "little") + second.to_bytes(4, "little") + b"".join(w.to_bytes(8, "little") for w in words)
    )
    run[32 : 32 + len(union)] = union
    found = ffi.new("struct mc_exit *")
    with ffi.from_buffer(run) as place:
        lib.mc_exit_decode(place, found)
        return exit_types.typed(found)


def test_exits_that_are_hard_to_bring_about() -> None:
    low, high = 0x80000021, 0
    assert decoded(lib.KVM_EXIT_FAIL_ENTRY, first=low, second=high) == FailEntryExit(0x80000021)
    assert decoded(lib.KVM_EXIT_SYSTEM_EVENT, 7, 8, first=2, second=2) == SystemEventExit(2, (7, 8))
    assert decoded(lib.KVM_EXIT_HYPERCALL, 1, 2, 3, 4, 5, 6, first=12) == HypercallExit(12, (1, 2, 3, 4, 5, 6))
    assert decoded(lib.KVM_EXIT_X86_WRMSR, 0x1234 << 32, 99, second=0) == MsrExit(0x1234, True, 99)
    assert decoded(lib.KVM_EXIT_X86_RDMSR, 0x1234 << 32, 99) == MsrExit(0x1234, False, 0)
    assert decoded(lib.KVM_EXIT_UNKNOWN, first=77) == UnknownExit(lib.KVM_EXIT_UNKNOWN, (77,))
    assert decoded(250) == UnknownExit(250, ())
    assert decoded(lib.KVM_EXIT_INTR) == InterruptedExit()


def test_the_words_of_an_internal_error_are_bounded_and_its_instruction_is_read() -> None:
    many = decoded(lib.KVM_EXIT_INTERNAL_ERROR, *range(16), first=2, second=1 << 31)
    assert many == InternalErrorExit(2, tuple(range(16)))
    assert str(many) == "exceptions at the same time"
    code = bytes([3, 0x0F, 0x01, 0xF9]) + bytes(12)  # size, then rdtscp
    words = [int.from_bytes(code[i : i + 8], "little") for i in (0, 8)]
    error = decoded(lib.KVM_EXIT_INTERNAL_ERROR, 1, *words, first=1, second=3)
    assert isinstance(error, InternalErrorExit)
    assert error.instruction == b"\x0f\x01\xf9"
    assert str(error) == "an instruction that KVM cannot emulate, its bytes 0f 01 f9"
    assert str(InternalErrorExit(99, ())) == "suberror 99"


def test_a_vcpu_closes_at_its_collection() -> None:
    with Kvm() as kvm, kvm.create_vm() as vm:
        vcpu: Vcpu | None = vm.create_vcpu()
        assert vcpu is not None
        fd = vcpu.fd
        del vcpu
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

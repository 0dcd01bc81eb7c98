"""The driver in the wrong hands: closed under a run, used afterwards, mixed up. An error says so; nothing crashes."""

from __future__ import annotations

import errno
import gc
import mmap
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bareguest import LOOP, Make, guests

from minicontainer.errors import Error
from minicontainer.kvm import Access, IoExit, Kvm, Machine, MmioExit, Vcpu, Vm
from minicontainer.native import lib

pytestmark = pytest.mark.needs("kvm")
OUT = b"\xe6\x10\xf4"  # out 0x10, al; hlt
IN = b"\xe4\x10\xf4"  # in al, 0x10; hlt


@pytest.fixture
def make() -> Iterator[Make]:
    with guests() as make:
        yield make


def mappings() -> int:
    """How many areas of this process are of processors."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("anon_inode:kvm-vcpu")


# ---- closed during a run


def run_until_it_fails(vcpu: Vcpu) -> None:
    while True:
        vcpu.run()


def test_a_vcpu_is_closed_by_a_signal_s_handler_during_its_run(make: Make) -> None:
    """Again and again: the handler runs before, in or behind KVM_RUN."""
    before = signal.signal(signal.SIGALRM, lambda *_: vcpu.close())
    try:
        for delay in range(1, 20):
            vcpu = make(b"\xe6\x10\xeb\xfc").vcpu  # out 0x10, al; jmp to it
            signal.setitimer(signal.ITIMER_REAL, delay / 1000)
            with pytest.raises(OSError, match=r"^KVM_RUN\(\): Bad file descriptor$"):
                run_until_it_fails(vcpu)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_vcpu_is_closed_by_another_thread_during_its_run(make: Make) -> None:
    guest, ended = make(LOOP), threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    main = threading.get_ident()

    def close() -> None:
        time.sleep(0.05)
        guest.vcpu.close()
        while not ended.wait(0.01):
            signal.pthread_kill(main, signal.SIGUSR1)  # the run of now goes on until an exit

    thread = threading.Thread(target=close)
    try:
        thread.start()
        with pytest.raises(OSError, match=r"^KVM_RUN\(\): Bad file descriptor$"):
            run_until_it_fails(guest.vcpu)
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("write", [True, False])
def test_a_handler_closes_its_processor(write: bool) -> None:
    with Machine() as m:
        m.load((OUT if write else IN), mode="real")
        calls: list[Access] = []

        @m.port(0x10)
        def close(access: Access) -> int:
            calls.append(access)
            m.processors[0].vcpu.close()
            return 5

        for _ in range(2):  # nor does it run again
            with pytest.raises((OSError, ValueError), match=r"Bad file descriptor|vcpu: it is closed"):
                m.run(timeout=5)
        assert len(calls) == 1


def test_a_closed_processor_does_not_use_a_descriptor_that_was_opened_since() -> None:
    """The number of its descriptor is that of another machine's processor."""
    with Machine() as m, Kvm() as kvm, kvm.create_vm() as vm, ExitStack() as stack:
        m.load(OUT, mode="real")

        @m.port(0x10)
        def exchange(access: Access) -> None:
            fd = m.processors[0].vcpu.fd
            m.processors[0].vcpu.close()
            other = stack.enter_context(vm.create_vcpu())
            assert other.fd == fd

        with pytest.raises(OSError, match="Bad file descriptor"):
            m.run(timeout=5)


# ---- used after close


def test_registers_that_were_synced_can_be_read_after_close(make: Make) -> None:
    guest = make(b"\x40\xe6\x10\xf4")  # inc ax; out 0x10, al; hlt
    kept = guest.vcpu.sync_regs(lib.KVM_SYNC_X86_REGS | lib.KVM_SYNC_X86_SREGS)
    assert guest.vcpu.sync_regs(lib.KVM_SYNC_X86_REGS) is kept
    guest.vcpu.run()
    guest.vcpu.close()
    assert kept.regs.rax == 1
    regs = kept.regs
    del kept
    gc.collect()
    regs.rax += 1
    assert regs.rax == 2


def test_synced_registers_can_be_set_as_any(make: Make) -> None:
    guest = make(b"\x40\xe6\x10\xf4")  # inc ax; out 0x10, al; hlt
    kept = guest.vcpu.sync_regs(lib.KVM_SYNC_X86_REGS)
    guest.vcpu.run()
    kept.regs.rbx = 5
    guest.vcpu.set_regs(kept.regs)
    assert guest.vcpu.get_regs().rbx == 5


@pytest.mark.parametrize("code", [IN, b"\xa0\x00\x80\xf4"])  # mov al, [0x8000]; hlt
def test_the_data_of_an_exit_can_be_used_after_close(make: Make, code: bytes) -> None:
    vcpu = make(code).vcpu
    exit_ = vcpu.run()
    assert isinstance(exit_, (IoExit, MmioExit))
    vcpu.close()
    exit_.data[:] = b"Q"
    assert bytes(exit_.data) == b"Q"
    assert exit_.data.nbytes == 1


def test_pages_are_unmapped_when_nothing_refers_to_them(make: Make) -> None:
    before = mappings()
    vcpu = make(IN).vcpu
    assert mappings() > before
    exit_, kept = vcpu.run(), vcpu.sync_regs()
    vcpu.close()
    assert mappings() > before
    del exit_, kept
    assert mappings() == before
    for use in (vcpu.immediate_exit, vcpu.sync_regs, vcpu.answer_msr, vcpu.mapped):
        with pytest.raises(ValueError, match=r"^vcpu: it is closed$"):
            use()


def test_pages_in_a_cycle_of_garbage_are_unmapped() -> None:
    before = mappings()
    with Kvm() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu()
        cycle: list[object] = [vcpu, vcpu.sync_regs(), memoryview(vcpu.mapped()[1])[8:16]]
        cycle.append(cycle)
        del cycle, vcpu
        assert mappings() == before + 1
        gc.collect()
        assert mappings() == before


def test_closing_a_machine_unmaps_all_of_its_processors() -> None:
    before = mappings()
    with Machine() as m:
        m.load("hello")
        m.hooks.tracer = lambda *_: None
        assert m.run(timeout=5).reason == "halt"
        assert mappings() > before
    assert mappings() == before


def test_an_exception_does_not_keep_the_pages_of_its_processor() -> None:
    before = mappings()
    with Machine() as m:
        m.load(OUT, mode="real")
        m.port(0x10)(lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError) as caught:
            m.run(timeout=5)
    assert mappings() == before
    assert caught.value.__traceback__ is not None


def test_a_processor_of_a_closed_machine_does_not_run() -> None:
    with Machine() as m:
        m.load("hello")
        m.start()
        first = m.processors[0]
    with pytest.raises(ValueError, match="vcpu: it is closed"):
        first.run()
    first.kick()
    assert len(first.tally()) == 2


def test_a_processor_outlives_its_machine() -> None:
    m: Machine | None = Machine()
    assert m is not None
    m.load(b"\xf4", mode="real")
    m.start()
    first = m.processors[0]
    del m
    gc.collect()
    filler = [mmap.mmap(-1, 2 << 20) for _ in range(8)]  # where its memory was, if that is gone
    outcome = first.run()
    assert outcome is not None
    assert outcome.reason == "halt"
    assert [bytes(other[0x1000:0x1001]) for other in filler] == [b"\0"] * 8


def test_a_processor_runs_once_at_a_time() -> None:
    with Machine() as m:
        m.load(OUT, mode="real")

        @m.port(0x10)
        def again(access: Access) -> None:
            with pytest.raises(Error, match=r"^cpu0: it runs already$"):
                m.processors[0].run()

        assert m.run(timeout=5).reason == "halt"
        control = m.processors[0].control
        assert lib.mc_vcpu_attach(control) == 0
        assert lib.mc_vcpu_attach(control) == -errno.EBUSY
        thread = threading.Thread(target=lambda: lib.mc_vcpu_detach(control))  # which is not attached
        thread.start()
        thread.join()
        assert control.thread == threading.get_native_id()
        lib.mc_vcpu_detach(control)
        assert control.thread == 0


# ---- rings


def test_rings_are_of_processors_of_the_same_machine(make: Make) -> None:
    vm, stranger = make().vm, make().vcpu
    for ring in (vm.dirty_ring, vm.coalesced_ring):
        with pytest.raises(ValueError, match=r"^(dirty|coalesced) ring: the vcpu is another machine's$"):
            ring(stranger)
        with pytest.raises(TypeError, match=r"^(dirty|coalesced) ring: is of a Vcpu, not int$"):
            ring(5)  # type: ignore[arg-type]


def ringed(stack: ExitStack) -> tuple[Vm, Vcpu] | None:
    vm = stack.enter_context(stack.enter_context(Kvm()).create_vm())
    if not vm.check_extension("KVM_CAP_DIRTY_LOG_RING"):  # Intel's processors without EPT, for example
        return None
    vm.enable_cap("KVM_CAP_DIRTY_LOG_RING", 16 * 1024)
    return vm, stack.enter_context(vm.create_vcpu())


def test_a_dirty_ring_is_unmapped_when_it_is_collected() -> None:
    before = mappings()
    with ExitStack() as stack:
        if (found := ringed(stack)) is None:
            return
        vm, vcpu = found
        for _ in range(3):
            ring = vm.dirty_ring(vcpu)
        assert mappings() == before + 2  # struct kvm_run, and the last ring
        vcpu.close()
        assert ring.take() == []  # its pages are its own
        ring.close()
        ring.close()
        with pytest.raises(ValueError, match=r"^dirty ring: it is closed$"):
            ring.take()
        with pytest.raises(OSError, match=r"^mmap\('dirty ring', 16384\): Bad file descriptor"):
            vm.dirty_ring(vcpu)
    assert mappings() == before


def test_the_writes_of_a_closed_vcpu_are_gone(make: Make) -> None:
    guest = make()
    ring = guest.vm.coalesced_ring(guest.vcpu)
    guest.vcpu.close()
    with pytest.raises(ValueError, match="vcpu: it is closed"):
        ring.take()

"""Machine: what a guest does to ports and addresses reaches the right function, a run ends for the right reason, and
what is told of it (stats, trace, timeline) is true. Guests are a few bytes, mostly of real mode, entered at 0x1000."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from box import until

from minicontainer.errors import Error, SpecError
from minicontainer.kvm import Access, GuestMemoryError, Machine, Result, Tracer, guests, processor
from minicontainer.kvm.debug.explain import EXITS_MAX, Recorder
from minicontainer.kvm.debug.trace import Exit, line
from minicontainer.native import ffi, lib

pytestmark = pytest.mark.needs("kvm")

START = 0x1000
PATIENCE = 60.0  # seconds; the rig is slow
HLT = b"\xf4"
LOOP = b"\xeb\xfe"  # jmp to itself
REP_OUTSB = b"\xbe\x00\x30\xb9\x06\x00\xba\x00\x05\xf3\x6e\xf4"  # si 0x3000, cx 6, dx 0x500; rep outsb; hlt
REP_INSB = b"\xbf\x00\x30\xb9\x06\x00\xba\x00\x05\xf3\x6c\xf4"  # di 0x3000, cx 6, dx 0x500; rep insb; hlt
STORM = b"\xe6\x10\xeb\xfc"  # out 0x10, al; jmp to it

Make = Callable[..., Machine]


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(code, **options)``: a Machine that is about to execute the code; closed at the end of the test."""
    with ExitStack() as stack:

        def machine(code: bytes = HLT, **options: Any) -> Machine:
            made = stack.enter_context(Machine(**options))
            made.memory.write(START, code)
            made.enter(START)
            return made

        yield machine


def second_processor(machine: Machine, code: bytes) -> None:
    """Lets processor 1 execute the code at 0x5000, as if it had been started already."""
    machine.start()
    machine.memory.write(0x5000, code)
    vcpu = machine.processors[1].vcpu
    sregs = vcpu.get_sregs()
    sregs.cs.base = sregs.cs.selector = 0
    vcpu.set_sregs(sregs)
    vcpu.set_regs(ffi.new("struct kvm_regs *", {"rip": 0x5000, "rflags": 2}))
    vcpu.set_mp_state(lib.KVM_MP_STATE_RUNNABLE)


# ---- ports and addresses


def test_a_port_is_answered_by_a_function(make: Make) -> None:
    m = make(
        b"\xb0\x2a\xe6\x50\xe5\x51\xa3\x00\x30\xf4"
    )  # mov al, 42; out 0x50, al; in ax, 0x51; mov [0x3000], ax; hlt
    seen = []

    @m.port(0x50, 2)
    def device(access: Access) -> int | None:
        seen.append(access)
        return 0x1234

    assert m.run(timeout=PATIENCE).reason == "halt"
    assert seen == [Access(0x50, 1, True, 42, 0), Access(0x51, 2, False, 0, 0)]
    assert m.memory[0x3000:0x3002] == b"\x34\x12"


@pytest.mark.parametrize(
    ("value", "read"), [(None, 0xFFFF), (0, 0), (-1, 0xFFFF), (0x123456, 0x3456), (True, 1), ("no device", 0xFFFF)]
)
def test_what_is_read_from_a_port(make: Make, value: Any, read: int) -> None:
    m = make(b"\x31\xc0\xe5\x50\xf4")  # xor ax, ax; in ax, 0x50; hlt
    if value != "no device":
        m.port(0x50)(lambda _: value)
    assert m.run(timeout=PATIENCE).registers["rax"] & 0xFFFF == read


def test_an_address_is_answered_by_a_function(make: Make) -> None:
    """mov ax, 0xd000; mov ds, ax; mov [0x10], ax; mov al, [0x21]; mov bl, [0x20] where nobody is; hlt"""
    m = make(b"\xb8\x00\xd0\x8e\xd8\xa3\x10\x00\xa0\x21\x00\x8a\x1e\x20\x10\xf4", memory="64K")
    seen = []

    @m.mmio(0xD0000)
    def device(access: Access) -> int | None:
        seen.append(access)
        return 0x77

    registers = m.run(timeout=PATIENCE).registers
    assert seen == [Access(0xD0010, 2, True, 0xD000, 0), Access(0xD0021, 1, False, 0, 0)]
    assert (registers["rax"] & 0xFF, registers["rbx"] & 0xFF) == (0x77, 0xFF)


def test_a_device_cannot_be_where_memory_is(make: Make) -> None:
    m = make(memory="64K")
    for address, size in ((0, 4), (0xFFFF, 1), (0xF000, 0x10000)):
        with pytest.raises(SpecError, match="would never be asked: memory is 0x0 to 0x10000"):
            m.mmio(address, size)(lambda _: 0)
    m.mmio(0x10000, 1)(lambda _: 0)


def test_what_a_function_raises_comes_out_and_the_guest_can_go_on(make: Make) -> None:
    m = make(b"\xe4\x50\xe6\x51\xf4")  # in al, 0x50; out 0x51, al; hlt
    wrote = []
    m.port(0x50)(lambda _: 1 // 0)
    m.port(0x51)(lambda access: wrote.append(access.value))
    with pytest.raises(ZeroDivisionError):
        m.run(timeout=PATIENCE)
    assert m.run(timeout=PATIENCE).reason == "halt"
    assert wrote == [0xFF]


def test_a_function_may_run_another_machine(make: Make) -> None:
    outer, inner = make(b"\xe4\x50\xf4"), make(b"\xb0\x2a\xe6\xf4")  # in al, 0x50; hlt. mov al, 42; out 0xf4, al
    outer.port(0x50)(lambda _: inner.run(timeout=PATIENCE).returncode)
    assert outer.run(timeout=PATIENCE).registers["rax"] & 0xFF == 42


def test_a_machine_in_a_machine_does_not_keep_the_outer_one_beyond_its_time(make: Make) -> None:
    outer, inner = make(b"\xe4\x50\xeb\xfe"), make(LOOP)  # in al, 0x50; then for ever
    outer.port(0x50)(lambda _: inner.run(timeout=0.3).returncode)
    assert outer.run(timeout=0.1).reason == "timeout"


# ---- string instructions


def test_rep_outsb_brings_every_item_to_one_port(make: Make) -> None:
    m = make(REP_OUTSB)
    m.memory[0x3000:0x3006] = b"string"
    seen: list[Access] = []
    m.port(0x500, 8)(seen.append)
    result = m.run(timeout=PATIENCE)
    assert [(a.address, a.size, chr(a.value)) for a in seen] == [(0x500, 1, c) for c in "string"]
    assert (result.registers["rsi"], result.registers["rcx"], result.registers["rdx"]) == (0x3006, 0, 0x500)


def test_rep_insb_takes_every_item_from_one_port(make: Make) -> None:
    m = make(REP_INSB)
    items = iter(b"answer")
    m.port(0x500)(lambda _: next(items))
    assert m.run(timeout=PATIENCE).reason == "halt"
    assert m.memory[0x3000:0x3008] == b"answer\0\0"


def test_an_error_in_the_middle_of_a_string_loses_no_other_item(make: Make) -> None:
    m = make(REP_OUTSB)
    m.memory[0x3000:0x3006] = b"string"
    seen: list[str] = []

    @m.port(0x500)
    def device(access: Access) -> None:
        seen.append(chr(access.value))
        if len(seen) == 3:
            raise LookupError

    with pytest.raises(LookupError):
        m.run(timeout=PATIENCE)
    assert m.run(timeout=PATIENCE).reason == "halt"
    assert "".join(seen) == "string"


@pytest.mark.parametrize("port", [0x3F8, 0xE9])
def test_strings_to_the_serial_port_and_to_the_debug_console(make: Make, port: int) -> None:
    m = make(REP_OUTSB.replace(b"\xba\x00\x05", b"\xba" + port.to_bytes(2, "little")))
    m.memory[0x3000:0x3006] = b"string"
    assert m.run(timeout=PATIENCE).output == b"string"


def test_a_string_longer_than_the_serial_buffer_is_whole(make: Make) -> None:
    m = make(b"\xbe\x00\x20\xb9\x00\x24\xba\xe9\x00\xf3\x6e\xf4")  # si 0x2000, cx 0x2400, dx 0xe9; rep outsb; hlt
    text = bytes(i % 251 for i in range(0x2400))
    m.memory[0x2000:0x4400] = text
    result = m.run(timeout=PATIENCE)
    assert (result.reason, result.output) == ("halt", text)


def test_a_string_from_the_serial_port(make: Make) -> None:
    m = make(REP_INSB.replace(b"\x00\x05", b"\xf8\x03"))
    m.start()
    m.serial.input(b"typed!!")
    assert m.run(timeout=PATIENCE).reason == "halt"
    assert m.memory[0x3000:0x3007] == b"typed!\0"


# ---- how it ends


def test_debug_exit_gives_the_guests_own_code_and_it_can_go_on(make: Make) -> None:
    m = make(b"\xb0\x07\xe6\xf4\xb0\x09\xe6\xf4\xf4")  # mov al, 7; out 0xf4, al; mov al, 9; out 0xf4, al; hlt
    results = [m.run(timeout=PATIENCE) for _ in range(3)]
    assert [(r.reason, r.returncode) for r in results] == [("debug-exit", 7), ("debug-exit", 9), ("halt", 0)]


def test_a_device_ends_it(make: Make) -> None:
    m = make(b"\xe6\x50\xf4")  # out 0x50, al; hlt
    m.port(0x50)(lambda _: m.end("poweroff"))
    assert m.run(timeout=PATIENCE).reason == "poweroff"
    assert m.run(timeout=PATIENCE).reason == "halt"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"\xb0\xfe\xe6\x64", "reset"),  # mov al, 0xfe; out 0x64, al
        (b"\xb0\x06\xba\xf9\x0c\xee", "reset"),  # mov al, 6; mov dx, 0xcf9; out dx, al
        (b"\xb0\x34\xba\x00\x06\xee", "poweroff"),  # mov al, 0x34; mov dx, 0x600; out dx, al
    ],
)
def test_a_pcs_own_ends(make: Make, code: bytes, reason: str) -> None:
    result = make(code).run(timeout=PATIENCE)
    assert (result.reason, result.returncode) == (reason, 0)


def test_limits_leave_it_standing(make: Make) -> None:
    m = make(STORM)
    assert m.run(timeout=PATIENCE, max_exits=5).exits["io"].count == 5
    assert m.run(timeout=PATIENCE, max_exits=7).exits["io"].count == 12
    second = m.run(timeout=0.05)
    assert (second.reason, second.returncode) == ("timeout", 124)
    assert second.detail.startswith("rip 0x100")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"max_exits": 0}, "max_exits"),
        ({"max_exits": 2**63}, "max_exits"),
    ],
)
def test_limits_have_limits(make: Make, options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError, match=f"^{field}"):
        make().run(**options)
    assert make().run(timeout=10**9, max_exits=2**63 - 1).reason == "halt"


def test_stop_from_another_thread(make: Make) -> None:
    m = make(LOOP)
    timer = threading.Timer(0.05, m.stop, ("enough",))
    timer.start()
    result = m.run()
    timer.join()
    assert (result.reason, result.returncode, result.registers["rip"]) == ("enough", 0, START)


def test_stop_before_the_run_is_not_lost(make: Make) -> None:
    """Whoever is to stop a machine cannot know whether it has been started."""
    m = make(LOOP)
    m.stop()
    assert m.run(timeout=PATIENCE).reason == "stopped"
    assert m.run(timeout=0.05).reason == "timeout"


def test_stop_from_a_handler(make: Make) -> None:
    m = make(STORM)
    m.port(0x10)(lambda _: m.stop())
    result = m.run(timeout=PATIENCE)
    assert (result.reason, result.exits["io"].count) == ("stopped", 1)


def test_it_runs_in_any_thread(make: Make) -> None:
    m, results = make(LOOP), []
    thread = threading.Thread(target=lambda: results.append(m.run(timeout=0.05)))
    thread.start()
    thread.join()
    assert [r.reason for r in results] == ["timeout"]


def test_ctrl_c_comes_out_and_the_machine_can_go_on(make: Make) -> None:
    m = make(b"\xb0\x41\xe6\xe9" + LOOP)  # mov al, 'A'; out 0xe9, al; then for ever
    main = threading.get_ident()
    timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            m.run()
    finally:
        signal.signal(signal.SIGINT, before)
        timer.join()
    assert m.run(timeout=0.05).output == b"A"


def test_ctrl_c_comes_out_of_a_guest_that_always_leaves(make: Make) -> None:
    """Most signals end a KVM_RUN; one that comes between two is heard soon all the same."""
    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(50):
            m = make(b"\xba\xfd\x03\xec\xeb\xfd")  # mov dx, 0x3fd; 1: in al, dx; jmp 1b: is there input?
            m.start()  # on a slow host the signal would come before the guest runs
            timer = threading.Timer(0.01, lambda: signal.pthread_kill(main, signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                m.run()  # without the rule this never ends
            timer.join()
            m.close()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_go_on_while_a_guest_loops(make: Make) -> None:
    """This thread does all its work while another is in KVM_RUN, which it then ends."""
    m, results = make(LOOP), []
    thread = threading.Thread(target=lambda: results.append(m.run(timeout=PATIENCE)))
    thread.start()
    until(lambda: m.processors and m.processors[0].control.entered_ns)
    assert sum(range(100000)) == 4999950000
    assert thread.is_alive()
    m.stop()
    thread.join()
    assert [r.reason for r in results] == ["stopped"]


def test_an_instruction_that_cannot_be_emulated_is_reported_with_its_address(make: Make) -> None:
    result = make(b"\xea\x00\x00\x00\xd0", memory="64K").run(timeout=PATIENCE)  # jmp 0xd000:0: no memory
    assert (result.reason, result.returncode) == ("internal-error", 122)
    assert "cannot emulate" in result.detail
    assert "rip 0x0" in result.detail


def test_halted_with_interrupts_off_is_found_with_an_irqchip_too(make: Make) -> None:
    m = make(irqchip=True, cpus=2)
    for _ in range(2):
        result = m.run(timeout=PATIENCE)
        assert (result.reason, result.returncode) == ("halt", 0)


# ---- what the guest sends


def full_pipe(stack: ExitStack) -> tuple[int, int]:
    """(Read, write) of one that takes no more."""
    read, write = os.pipe()
    stack.callback(os.close, read)
    stack.callback(os.close, write)
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"\0" * 4096)
    os.set_blocking(write, True)
    return read, write


class Reader:
    """Takes what comes out of a pipe, in a thread, up to a mark."""

    def __init__(self, fd: int) -> None:
        self._fd, self.data = fd, bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self.data.endswith(b"end"):
            self.data += os.read(self._fd, 4096)

    def all(self) -> bytes:
        self._thread.join(PATIENCE)
        return bytes(self.data)


def test_a_reader_who_takes_nothing_does_not_keep_it_beyond_its_time(make: Make) -> None:
    """A pipe that is full makes the guest wait; the limit is kept all the same, and nothing is lost."""
    with ExitStack() as stack:
        read, write = full_pipe(stack)
        m = make(b"\xb9\xe8\x03\xb0\x78\xe6\xe9\xb0\x0a\xe6\xe9\xe2\xf6\xf4", serial=write)  # "x\n" 1000 times
        assert m.run(timeout=0.2).reason == "timeout"
        reader = Reader(read)
        assert m.run(timeout=PATIENCE).reason == "halt"
        os.write(write, b"end")
        assert reader.all().lstrip(b"\0") == b"x\n" * 1000 + b"end"


def test_stop_ends_the_wait_for_a_reader_of_the_last_output(make: Make) -> None:
    """The guest has halted: what it said last is offered until somebody stops that."""
    with ExitStack() as stack:
        _, write = full_pipe(stack)
        m = make(b"\xb0\x78\xe6\xe9\xf4", serial=write)  # mov al, 'x'; out 0xe9, al; hlt
        timer = threading.Timer(0.1, m.stop)
        timer.start()
        assert m.run(timeout=PATIENCE).reason == "halt"
        timer.join()
        assert m.board.stop == 0


def test_a_reader_who_went_away_is_an_error(make: Make) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        with pytest.raises(BrokenPipeError, match="serial output"):
            make(b"\xb0\x0a\xe6\xe9\xeb\xfe", serial=write).run(timeout=PATIENCE)  # a line's end; then for ever
    finally:
        os.close(write)


def test_a_guest_that_polls_for_input_has_printed_its_prompt(make: Make) -> None:
    """mov dx, 0x3f8; mov al, '>'; out dx, al; mov dx, 0x3fd; until DR: in al, dx; mov dx, 0x3f8; in al, dx; hlt"""
    read, write = os.pipe()
    m = make(b"\xba\xf8\x03\xb0\x3e\xee\xba\xfd\x03\xec\xa8\x01\x74\xfb\xba\xf8\x03\xec\xf4", serial=write)
    m.start()
    answer = threading.Thread(target=lambda: m.serial.input(os.read(read, 100) + b"?"))
    try:
        answer.start()
        result = m.run(timeout=PATIENCE)
    finally:
        os.close(write)
        answer.join()
        os.close(read)
    assert (result.reason, result.registers["rax"] & 0xFF) == ("halt", ord(">"))


def test_output_can_be_looked_at_by_a_device(make: Make) -> None:
    m = make(b"\xb0\x41\xe6\xe9\xe6\x50\xf4")  # mov al, 'A'; out 0xe9, al; out 0x50, al; hlt
    seen = []
    m.port(0x50)(lambda _: seen.append(m.serial.output))
    m.run(timeout=PATIENCE)
    assert seen == [b"A"]


# ---- life


def test_a_machine_that_is_closed_does_not_run(make: Make) -> None:
    m = make()
    assert m.run(timeout=PATIENCE).reason == "halt"
    m.close()
    m.close()
    with pytest.raises(Error, match=r"^machine: it is closed$"):
        m.run()
    assert m.serial.input(b"late") == 4  # a console that has not noticed: nobody's interrupt is raised


def test_a_machine_that_runs_is_not_closed_and_not_run_twice(make: Make) -> None:
    m = make(b"\xe6\x50\xf4")  # out 0x50, al; hlt
    said = []

    @m.port(0x50)
    def device(access: Access) -> None:
        for forbidden in (m.run, m.close):
            with pytest.raises(Error) as caught:
                forbidden()
            said.append(str(caught.value))

    assert m.run(timeout=PATIENCE).reason == "halt"
    assert [text.partition(",")[0] for text in said] == ["machine: it runs already", "machine: it runs"]


def test_what_is_booted_is_said_before_the_start(make: Make) -> None:
    m = make()
    said = "machine: it has started, and cannot boot anything else"
    m.start()
    for late in (lambda: m.load("hello"), lambda: m.enter(START), lambda: m.load_firmware(bytes(0x1000))):
        with pytest.raises(Error, match=said):
            late()
    assert m.run(timeout=PATIENCE).reason == "halt"


def test_real_mode_is_entered_in_its_first_64_kib(make: Make) -> None:
    with Machine() as m, pytest.raises(SpecError, match=r"^entry 0x20000: is beyond the first 64 KiB"):
        m.enter(0x20000)


def test_the_serial_ports_addresses_have_a_device_already(make: Make) -> None:
    for first, count in ((0x3F8, 1), (0x3FF, 1), (0x3F8, 8)):
        with pytest.raises(SpecError, match="0x3f8 to 0x3ff are the serial port"):
            make().port(first, count)(lambda access: None)
    make().port(0x3F7, 2)(lambda access: None)
    make().port(0x3FF, 2)(lambda access: None)


def test_a_view_of_memory_that_is_in_use_is_told_and_memory_is_freed_later(make: Make) -> None:
    m = make()
    view = m.memory.view(0, 16)
    with pytest.raises(Error, match="guest memory: it cannot be unmapped, a view is in use"):
        m.close()
    view.release()
    m.close()
    with pytest.raises(ValueError, match="closed"):
        m.memory.read(0, 1)


def test_nothing_to_run(make: Make) -> None:
    with Machine() as m, pytest.raises(Error, match="nothing was loaded"):
        m.run()


@pytest.mark.parametrize("mode", ["pvh", "linux", "", "unreal"])
def test_modes_that_need_a_file(make: Make, mode: str) -> None:
    with pytest.raises(SpecError, match=r"^mode .*real, protected, long, user64"):
        make().enter(START, mode)
    with pytest.raises(GuestMemoryError):
        make().enter(1 << 30)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cpus": 0}, "^cpus"),
        ({"cpus": 255}, "^cpus"),
        ({"memory": 0}, "^memory"),
        ({"memory": 5000}, "^memory .*multiple"),
        ({"memory": "900T"}, "^memory .*this host"),
    ],
)
def test_what_a_machine_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Machine(**options)


def test_several_processors_need_interrupts(make: Make) -> None:
    with pytest.raises(SpecError, match=r"^cpus 2: .*--irqchip"):
        make(cpus=2).run()


def test_a_start_that_fails_half_way_is_no_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    m = make(irqchip=True, cpus=3)
    true = processor.InitialState.set_up

    def set_up(self: processor.InitialState, vcpu: Any, number: int) -> None:
        if number == 2:
            raise MemoryError
        true(self, vcpu, number)

    monkeypatch.setattr(processor.InitialState, "set_up", set_up)
    with pytest.raises(MemoryError):
        m.run()
    assert m.processors == []
    with pytest.raises(Error, match="it was not started in full"):  # never with two processors of three
        m.run()


def test_without_descriptors_there_is_an_error_and_nothing_is_left() -> None:
    """Each of the descriptors that a machine takes is the one that cannot be had."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = [os.dup(0) for _ in range(highest)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    reasons = []
    try:
        for room in range(5):
            free = [os.dup(0) for _ in range(room)]
            limit = max(map(int, os.listdir("/proc/self/fd"))) + 1
            for fd in free:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            try:
                with Machine(irqchip=False) as m:
                    m.memory.write(START, HLT)
                    m.enter(START)
                    reasons.append(m.run(timeout=PATIENCE).reason)
            except (Error, OSError) as error:
                reasons.append("Too many open files" if "Too many open files" in str(error) else str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
    finally:
        for fd in fillers:
            os.close(fd)
    assert reasons[0] == "Too many open files"
    assert reasons[-1] == "halt"
    assert set(reasons) == {"Too many open files", "halt"}


def test_modes_with_tables(make: Make) -> None:
    code = b"\xb8\x2a\x00\x00\x00\xe6\xf4"  # mov eax, 42; out 0xf4, al: the same in 32 and 64 bits
    for mode in ("protected", "long", "user64"):
        m = make()
        m.memory.write(0x100000, code)
        m.enter(0x100000, mode)
        result = m.run(timeout=PATIENCE)
        assert (result.reason, result.returncode) == ("debug-exit", 42), (mode, result.detail)
        assert result.registers["cs"] & 3 == (3 if mode == "user64" else 0)


# ---- several processors


def test_both_processors_of_a_machine_work(make: Make) -> None:
    with Machine() as m:
        m.load(guests.path("smp"))
        result = m.run(timeout=PATIENCE)
    assert (result.reason, result.output) == ("halt", b"This is processor 0.\nThis is processor 1.\n")
    assert threading.active_count() == 1


@pytest.mark.parametrize("how", ["stop", "timeout", "ctrl-c"])
def test_processors_that_loop_are_all_stopped(make: Make, how: str) -> None:
    m = make(LOOP, irqchip=True, cpus=2)
    second_processor(m, LOOP)
    main = threading.get_ident()
    acts: dict[str, Callable[[], object]] = {
        "stop": m.stop,
        "ctrl-c": lambda: signal.pthread_kill(main, signal.SIGINT),
        "timeout": lambda: None,
    }
    timer = threading.Timer(0.1, acts[how])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        reason = m.run(timeout=0.2 if how == "timeout" else PATIENCE).reason
    except KeyboardInterrupt:
        reason = "ctrl-c"
    finally:
        signal.signal(signal.SIGINT, before)
        timer.join()
    assert reason == {"stop": "stopped"}.get(how, how)
    assert threading.active_count() == 1
    assert [p.control.thread for p in m.processors] == [0, 0]


def test_any_processor_may_end_the_machine(make: Make) -> None:
    m = make(LOOP, irqchip=True, cpus=2)
    second_processor(m, b"\xe6\x50\xb0\x05\xe6\xf4")  # out 0x50, al; mov al, 5; out 0xf4, al
    seen: list[Access] = []
    m.port(0x50)(seen.append)
    result = m.run(timeout=PATIENCE)
    assert (result.reason, result.returncode, result.vcpu) == ("debug-exit", 5, 1)
    assert result.registers["rax"] & 0xFF == 5
    assert [access.vcpu for access in seen] == [1]


def test_what_is_raised_in_another_processors_thread_comes_out(make: Make) -> None:
    m = make(LOOP, irqchip=True, cpus=2)
    second_processor(m, b"\xe6\x50\xf4")  # out 0x50, al; hlt
    m.port(0x50)(lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        m.run(timeout=PATIENCE)
    assert threading.active_count() == 1


# ---- what is told of it


def test_exits_are_counted_by_reason_and_by_port(make: Make) -> None:
    """out 0x50, al; in al, 0x51; out 0x50, al; mov [0xd000:0], al; out 0xf4, al: the last one too."""
    m = make(b"\xe6\x50\xe4\x51\xe6\x50\xb8\x00\xd0\x8e\xd8\xa2\x00\x00\xe6\xf4", want_ports=True, memory="64K")
    result = m.run(timeout=PATIENCE)
    assert {name: count.count for name, count in result.exits.items()} == {"io": 4, "mmio": 1}
    assert {port: count.count for port, count in result.ports.items()} == {0x50: 2, 0x51: 1, 0xF4: 1}
    assert result.exits["io"].mean == result.exits["io"].seconds / 4 > 0
    assert 0 < result.guest_time <= result.walltime
    assert make(STORM).run(max_exits=3).ports == {}


def test_the_time_between_two_runs_is_no_exits(make: Make) -> None:
    m = make(STORM)
    m.run(max_exits=1)
    m.processors[0].control.left_ns = 1  # as if that had been when the host was booted
    assert m.run(max_exits=1).exits["io"].seconds < 1


def test_a_result_is_data(make: Make) -> None:
    m = make(b"\xb0\x41\xe6\xe9\xf4", want_ports=True)  # mov al, 'A'; out 0xe9, al; hlt
    ends: list[Result] = []
    m.on_end = ends.append
    result = m.run(timeout=PATIENCE)
    data = json.loads(json.dumps(result.as_dict()))
    assert ends == [result]
    assert (data["reason"], data["output"], data["returncode"]) == ("halt", "A", 0)
    assert (data["exits"]["hlt"]["count"], data["ports"]["0xe9"]["count"]) == (1, 1)
    assert data["registers"]["rip"] == hex(START + 5)


def traced(machine: Machine, **options: Any) -> tuple[list[Exit], Result]:
    seen: list[Exit] = []
    machine.hooks.tracer = Tracer([seen.append])
    return seen, machine.run(timeout=PATIENCE, **options)


def test_every_exit_is_traced(make: Make) -> None:
    """mov al, 'H'; out 0x3f8 (dx), al; in al, 0x51; mov [0xd000:2], al; hlt: C's, Python's, nobody's, and the last."""
    m = make(b"\xb0\x48\xba\xf8\x03\xee\xe4\x51\xbb\x00\xd0\x8e\xdb\xa2\x02\x00\xf4", memory="64K")
    m.port(0x51)(lambda _: 0x2A)
    seen, result = traced(m)
    assert result.reason == "halt"
    assert [(e.number, e.vcpu, e.reason, e.address, e.size, e.items, e.write, e.data) for e in seen] == [
        (1, 0, "io", 0x3F8, 1, 1, True, b"H"),
        (2, 0, "io", 0x51, 1, 1, False, b"\x2a"),
        (3, 0, "mmio", 0xD0002, 1, 1, True, b"\x2a"),
        (4, 0, "hlt", None, 0, 0, False, b""),
    ]
    assert all(START <= e.rip <= START + 17 for e in seen)
    times = [time for e in seen for time in (e.entered, e.left)]
    assert times == sorted(times)
    assert "out 0x3f8 1 byte: 48 'H'" in line(seen[0], seen[0].entered)
    assert "in 0x51 1 byte: 2a '*'" in line(seen[1], 0)
    assert line(seen[3], 0).endswith("hlt")


@pytest.mark.parametrize(
    ("code", "address"),
    [
        (b"\xb0\x07\xe6\xf4\xf4", 0xF4),  # mov al, 7; out 0xf4, al; hlt: debug-exit
        (b"\xb0\xfe\xe6\x64\xf4", 0x64),  # mov al, 0xfe; out 0x64, al; hlt: a device's end
    ],
)
def test_the_exit_that_ends_a_run_is_traced_once(make: Make, code: bytes, address: int) -> None:
    m = make(code)
    seen, _ = traced(m)
    assert [(e.reason, e.address) for e in seen] == [("io", address)]
    assert m.run(timeout=PATIENCE).reason == "halt"
    assert [(e.reason, e.address) for e in seen] == [("io", address), ("hlt", None)]


def test_a_string_is_traced_with_all_its_items(make: Make) -> None:
    m = make(REP_OUTSB)
    m.memory[0x3000:0x3006] = b"string"
    seen, _ = traced(m)
    assert b"".join(e.data for e in seen) == b"string"
    assert sum(e.items for e in seen) == 6
    several = seen[0]._replace(items=40, size=1, data=b"0123456789abcdef" * 2 + b"01234567")
    assert several.access() == "out 0x500 40 x 1 bytes: " + b"0123456789abcdef".hex(" ") + "... '0123456789abcdef'"


def test_a_tracer_may_come_late(make: Make) -> None:
    m = make(STORM)
    m.run(max_exits=3)
    seen, _ = traced(m, max_exits=2)
    assert [(e.number, e.address) for e in seen][-2:] == [(1, 0x10), (2, 0x10)]
    assert all(e.rip in (START, START + 2) for e in seen)


def test_exits_of_several_processors_have_numbers_of_their_own(make: Make) -> None:
    m = make(STORM, irqchip=True, cpus=2)
    second_processor(m, STORM)
    seen: list[Exit] = []

    def tell(exit_: Exit) -> None:
        seen.append(exit_)
        if len({e.vcpu for e in seen[-100:]}) == 2:
            m.stop("both")

    m.hooks.tracer = Tracer([tell])
    assert m.run(timeout=PATIENCE).reason == "both"
    assert [e.number for e in seen] == list(range(1, len(seen) + 1))


def explained(code: bytes, **limits: Any) -> Recorder:
    recorder = Recorder()
    with Machine(watch=recorder) as m:
        m.memory.write(START, code)
        m.enter(START)
        m.hooks.tracer = Tracer([recorder.exit])
        recorder.phase = "processors"
        m.run(**limits)
    return recorder


def test_the_timeline_has_every_ioctl_and_then_the_exits() -> None:
    recorder = explained(b"\xe6\x50\xf4", timeout=PATIENCE)  # out 0x50, al; hlt
    events = list(recorder.timeline)
    calls = [event.call.partition("(")[0] for event in events]
    assert calls[:4] == ["open", "KVM_CREATE_VM", "KVM_GET_VCPU_MMAP_SIZE", "KVM_SET_USER_MEMORY_REGION"]
    assert {"KVM_CREATE_VCPU", "KVM_SET_CPUID2", "KVM_SET_SREGS", "KVM_SET_REGS"} <= set(calls)
    assert [event.phase for event in events if event.call.startswith("KVM_RUN")] == ["run", "run"]
    assert "KVM_RUN: io out 0x50 1 byte: 00 '.'" in [event.call for event in events]
    assert recorder.summary().startswith("first guest instruction after ")
    assert "cpu0" in recorder.timeline.format()


def test_a_guest_that_never_came_out_was_entered_all_the_same() -> None:
    recorder = explained(LOOP, timeout=0.05)
    run = [event for event in recorder.timeline if event.call.startswith("KVM_RUN")]
    assert [event.call for event in run] == ["KVM_RUN(cpu0)"]
    assert run[0].result < 0
    assert recorder.summary().startswith("first guest instruction after ")


def test_a_long_timeline_says_what_it_leaves_out() -> None:
    recorder = explained(STORM, max_exits=EXITS_MAX + 7)
    assert recorder.omitted == 7
    assert recorder.summary().endswith("; 7 more exits are not shown")
    assert Recorder().summary() == "never entered"


# ---- what load takes, and how things show


def test_a_guest_by_its_name_a_path_or_its_bytes() -> None:
    content = Path(guests.path("hello")).read_bytes()
    for kernel in ("hello", Path(guests.path("hello")), guests.path("hello"), content, bytearray(content)):
        with Machine() as m:
            m.load(kernel)  # type: ignore[arg-type]
            assert m.run(timeout=60).output == b"Hello from real mode.\n"
    with Machine() as m:
        for wrong in (None, 5, 1.5, ["hello"], object()):
            with pytest.raises(SpecError, match=r"kernel.*must be a path, a guest's name or bytes, not"):
                m.load(wrong)  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError, match="did you mean the guest hello"):
            m.load("helo")


def test_what_things_show() -> None:
    with Machine(memory="2M") as m:
        assert repr(m) == "<minicontainer.Machine: 2048 KiB, nothing loaded>"
        m.load("hello")
        m.start()
        assert repr(m) == "<minicontainer.Machine: 2048 KiB, flat>"
        for thing in (m.kvm, m.vm, m.processors[0].vcpu):
            assert re.fullmatch(rf"<minicontainer.kvm.{type(thing).__name__}: descriptor \d+>", repr(thing))
        result = m.run(timeout=60)
        assert re.search(r"rip: 0x[0-9a-f]+", repr(result.registers))
        assert len(repr(result)) < 300
    assert repr(m) == "<minicontainer.Machine: 2048 KiB, closed>"
    assert repr(m.vm) == "<minicontainer.kvm.Vm: closed>"


# ---- initial registers


def test_registers_that_the_caller_gives(make: Make) -> None:
    m = make(b"\xe6\x10\xf4")  # out 0x10, al; hlt
    m.enter(START, registers={"rax": 0x5A, "r15": 2**64 - 1})
    seen = []
    m.port(0x10)(lambda access: seen.append(access.value))
    assert m.run(timeout=PATIENCE).registers["r15"] == 2**64 - 1
    assert seen == [0x5A]


def test_registers_go_above_those_of_the_kernels_protocol(make: Make) -> None:
    m = make()
    sector = HLT + bytes(509) + b"\x55\xaa"
    assert m.load(sector).registers == {"rsp": 0x7C00, "rdx": 0x80}
    assert m.load(sector, registers={"rdx": 0, "rbx": 1}).registers == {"rsp": 0x7C00, "rdx": 0, "rbx": 1}


@pytest.mark.parametrize(
    ("registers", "message"),
    [
        ({"rip": 0}, "registers rip: is no register that can be set here (entry, or the argument rip of enter)"),
        ({"eax": 0}, "registers eax: is no register that can be set here (rax, rbx, "),
        ({"rax": 2**64}, f"registers rax {2**64}: must be a number from 0 to 2**64 - 1"),
        ({"rax": "1"}, "registers rax 1: must be a number"),
    ],
)
def test_registers_that_cannot_be(make: Make, registers: dict[str, Any], message: str) -> None:
    m = make()
    for use in (lambda: m.enter(START, registers=registers), lambda: m.load(HLT, registers=registers)):
        with pytest.raises(SpecError) as caught:
            use()
        assert str(caught.value).startswith(message)

"""The serial port by its registers, as a driver sees it (National Semiconductor PC16550D data sheet), and by its two
ends: what is sent goes to a descriptor or is kept, what is received waits in a bounded place."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.kvm import serial as module
from minicontainer.kvm.serial import Serial
from minicontainer.native import lib

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCRATCH = 0, 1, 2, 2, 3, 4, 5, 6, 7
DLL, DLM = 0, 1  # while LCR has DLAB
DLAB, LOOP = 0x80, 0x10
DR, OE, THRE, TEMT = 0x01, 0x02, 0x20, 0x40
NONE, MODEM, EMPTY, RECEIVED, ERROR = 0x1, 0x0, 0x2, 0x4, 0x6  # what IIR says, the least urgent first
ROOM = 4096  # csrc/kvm/serial.c, IN
BUFFER = 8192  # csrc/kvm/serial.c, OUT
TIMEOUT = 20.0


class Port:
    """Registers by offset: ``port[LCR] = 3``."""

    def __init__(self, serial: Serial) -> None:
        self.serial = serial

    def __getitem__(self, offset: int) -> int:
        return lib.mc_serial_read(self.serial.control, offset)

    def __setitem__(self, offset: int, value: int) -> None:
        assert self.write(offset, value) == 0

    def write(self, offset: int, value: int) -> int:
        """0, or -errno."""
        return lib.mc_serial_write(self.serial.control, offset, value)

    def send(self, data: bytes) -> None:
        for byte in data:
            self[DATA] = byte

    def receive(self) -> bytes:
        """All there is."""
        found = bytearray()
        while self[LSR] & DR:
            found.append(self[DATA])
        return bytes(found)


@pytest.fixture
def port() -> Port:
    return Port(Serial())


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """(Read, write)."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


# ---- registers


def test_at_reset(port: Port) -> None:
    assert [port[i] for i in range(8)] == [0, 0, NONE, 0, 0, THRE | TEMT, 0xB0, 0]


@pytest.mark.parametrize(("offset", "kept"), [(IER, 0x0F), (LCR, 0xFF), (MCR, 0x1F), (SCRATCH, 0xFF)])
def test_registers_keep_the_bits_that_they_have(port: Port, offset: int, kept: int) -> None:
    for value in (0xFF, 0xA5, 0x5A, 0):
        port[offset] = value
        assert port[offset] == value & kept


def test_status_registers_cannot_be_written(port: Port) -> None:
    port[LSR], port[MSR] = 0xFF, 0xFF
    assert [port[LSR], port[MSR]] == [THRE | TEMT, 0xB0]


def test_the_divisor_is_behind_dlab(port: Port) -> None:
    port[IER] = 5
    port[LCR] = DLAB | 3
    assert [port[DLL], port[DLM]] == [12, 0]  # 9600 baud
    port[DLL], port[DLM] = 0x34, 0x12
    assert [port[DLL], port[DLM]] == [0x34, 0x12]
    assert [port[IIR], port[LSR]] == [NONE, THRE | TEMT]  # the others are where they were
    port[LCR] = 3
    assert [port[IER], port.serial.output] == [5, b""]  # nothing was sent by it


def test_the_fifo_is_reported(port: Port) -> None:
    port[FCR] = 1
    assert port[IIR] == 0xC0 | NONE  # a 16550A
    port[FCR] = 0
    assert port[IIR] == NONE


def test_linuxs_probe_finds_a_16550a(port: Port) -> None:
    """drivers/tty/serial/8250/8250_port.c, autoconfig."""
    saved = port[IER]
    port[IER] = 0
    assert port[IER] & 0x0F == 0
    port[IER] = 0x0F
    assert port[IER] & 0x0F == 0x0F
    port[IER] = saved
    port[MCR] = LOOP | 0x0A  # OUT2, RTS
    assert port[MSR] & 0xF0 == 0x90
    port[MCR] = 0
    port[LCR] = 0xBF
    port[FCR] = 0
    port[LCR] = 0
    port[FCR] = 1
    assert port[IIR] >> 6 == 3


# ---- sending and receiving


def test_output_is_retained(port: Port) -> None:
    port.send(b"no end of line")
    assert port.serial.output == b"no end of line"
    port.send(b"\xff\0")
    assert port.serial.output == b"no end of line\xff\0"


def test_what_is_received_comes_in_order(port: Port) -> None:
    assert port[DATA] == 0
    assert port.serial.input(b"typed") == 5
    assert port[LSR] == THRE | TEMT | DR
    assert port.receive() == b"typed"
    assert port[LSR] == THRE | TEMT


def test_receiving_is_bounded(port: Port) -> None:
    assert port.serial.input(b"x" * 3000) == 3000
    assert port.serial.input(b"y" * 3000) == ROOM - 3000
    assert port.serial.input(b"z") == 0
    assert port[LSR] & OE == 0  # nothing was lost: it was not taken
    assert port[DATA] == ord("x")
    assert port.serial.input(b"zz") == 1
    assert port.receive() == b"x" * 2999 + b"y" * 1096 + b"z"


def test_an_overrun_is_reported_once(port: Port) -> None:
    assert port.serial.input(b"x" * 5000, overrun=True) == 5000
    assert port[LSR] & (OE | DR) == OE | DR
    assert port[LSR] & (OE | DR) == DR
    assert len(port.receive()) == ROOM


def test_received_bytes_wrap_around_their_place(port: Port) -> None:
    for i in range(10):
        data = bytes((i + j) % 256 for j in range(1000))
        assert port.serial.input(data) == 1000
        assert port.receive() == data


def test_the_receiver_can_be_cleared(port: Port) -> None:
    port.serial.input(b"old")
    port[FCR] = 1 | 2
    assert port[LSR] & DR == 0
    port.serial.input(b"new")
    assert port.receive() == b"new"


# ---- interrupts


def test_a_received_byte_is_a_cause_until_it_is_read(port: Port) -> None:
    port.serial.input(b"ab")
    assert port[IIR] == NONE
    port[IER] = 1
    assert [port[IIR], port[IIR]] == [RECEIVED, RECEIVED]
    assert port[DATA] == ord("a")
    assert port[IIR] == RECEIVED
    assert port[DATA] == ord("b")
    assert port[IIR] == NONE


def test_an_empty_transmitter_interrupts_when_enabled_and_after_each_byte(port: Port) -> None:
    """Linux's tty output stands still where the first is missing: it enables the interrupt to be called."""
    port[IER] = 2
    assert [port[IIR], port[IIR]] == [EMPTY, NONE]  # reading clears it
    port[IER] = 2
    assert port[IIR] == NONE
    port[DATA] = ord("x")
    assert [port[IIR], port[IIR]] == [EMPTY, NONE]
    port[IER] = 0
    port[IER] = 2
    assert port[IIR] == EMPTY


def test_causes_come_by_their_urgency(port: Port) -> None:
    port[IER] = 0x0F
    port.serial.input(b"x" * (ROOM + 1), overrun=True)
    port[MCR] = LOOP
    assert port[IIR] == ERROR
    assert port[LSR] & OE
    assert port[IIR] == RECEIVED
    port[FCR] = 3
    assert port[IIR] == 0xC0 | EMPTY
    assert port[IIR] == 0xC0 | MODEM
    assert port[MSR] & 0x0F
    assert port[IIR] == 0xC0 | NONE


# ---- loopback


def test_loopback_sends_to_itself(port: Port) -> None:
    port[MCR] = LOOP
    port.send(b"echo")
    assert (port.receive(), port.serial.output) == (b"echo", b"")
    port[MCR] = 0
    port.send(b"out")
    assert (port.receive(), port.serial.output) == (b"", b"out")


def test_loopback_overruns_too(port: Port) -> None:
    port[MCR] = LOOP
    port.send(b"x" * ROOM)
    assert port[LSR] & OE == 0
    port.send(b"y")
    assert port[LSR] & OE
    assert port.receive() == b"x" * ROOM


@pytest.mark.parametrize(("output", "status"), [(1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80)])
def test_loopback_brings_outputs_back_as_inputs(port: Port, output: int, status: int) -> None:
    """DTR, RTS, OUT1, OUT2 as DSR, CTS, RI, DCD."""
    port[MCR] = LOOP
    assert port[MSR] & 0xF0 == 0
    port[MCR] = LOOP | output
    ringing = output == 4
    assert port[MSR] == status | (0 if ringing else status >> 4)  # a ring is told when it ends
    assert port[MSR] == status
    port[MCR] = LOOP
    assert [port[MSR], port[MSR]] == [status >> 4, 0]


# ---- where output goes


def test_a_line_goes_out_when_it_is_whole(pipe: tuple[int, int]) -> None:
    port = Port(Serial(pipe[1]))
    port.send(b"half a li")
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 100)
    port.send(b"ne\n")
    assert os.read(pipe[0], 100) == b"half a line\n"
    port.send(b"the rest")
    assert port.serial.flush()
    assert os.read(pipe[0], 100) == b"the rest"
    assert port.serial.output == b""


def test_nothing_waits_where_it_is_eager(pipe: tuple[int, int]) -> None:
    port = Port(Serial(pipe[1], eager=True))
    port.send(b"$")
    assert os.read(pipe[0], 100) == b"$"


def test_a_full_buffer_without_a_descriptor_is_the_callers_to_empty(port: Port) -> None:
    port.send(b"x" * BUFFER)
    assert port.write(DATA, ord("y")) < 0
    assert port.serial.flush()
    port[DATA] = ord("z")
    assert port.serial.output == b"x" * BUFFER + b"z"


def test_the_latest_output_is_retained(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_MAX", 100)
    for i in range(30):
        port.send(b"%09d\n" % i)
        port.serial.flush()
    lines = [b"%09d\n" % i for i in range(30)]
    assert port.serial.output == b"".join(lines[20:])
    assert port.serial.lost == 200


def fill(fd: int) -> int:
    """Until a pipe takes no more: how many bytes."""
    os.set_blocking(fd, False)
    done = 0
    try:
        while True:
            done += os.write(fd, b"\0" * 4096)
    except BlockingIOError:
        return done


def test_input_does_not_wait_for_output(pipe: tuple[int, int]) -> None:
    """A reader that takes nothing stops the guest, and not the console that is to end it."""
    size = fill(pipe[1])
    os.set_blocking(pipe[1], True)
    port = Port(Serial(pipe[1]))
    guest = threading.Thread(target=port.send, args=(b"stuck\n",))
    guest.start()
    guest.join(0.1)
    assert guest.is_alive()
    assert port.serial.input(b"typed") == 5
    while size:
        size -= len(os.read(pipe[0], size))
    guest.join(TIMEOUT)
    assert os.read(pipe[0], 100) == b"stuck\n"
    assert port.receive() == b"typed"


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    """O_NONBLOCK is the terminal's or pipe's, and so may be set by anybody who shares it."""
    size = fill(pipe[1])
    port = Port(Serial(pipe[1]))
    guest = threading.Thread(target=port.send, args=(b"whole\n",))
    guest.start()
    guest.join(0.05)
    assert guest.is_alive()
    while size:
        size -= len(os.read(pipe[0], size))
    guest.join(TIMEOUT)
    assert os.read(pipe[0], 100) == b"whole\n"


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_flush_without_wait_writes_what_there_is_room_for(kind: str) -> None:
    ours, theirs = os.pipe()[::-1] if kind == "pipe" else os.openpty()[::-1]
    try:
        room = fill(ours)
        os.set_blocking(ours, True)
        port = Port(Serial(ours))
        port.send(b"x" * BUFFER)
        assert not port.serial.flush(wait=False)
        while room > 0:
            room -= len(os.read(theirs, room))
        got = bytearray()
        while not port.serial.flush(wait=False):
            got += os.read(theirs, BUFFER)
        while len(got) < BUFFER:
            got += os.read(theirs, BUFFER)
        assert got == b"x" * BUFFER
    finally:
        os.close(ours)
        os.close(theirs)


def test_output_that_cannot_be_written_is_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    port = Port(Serial(write))
    try:
        port.send(b"to nobody\n")  # kept, and owed
        with pytest.raises(BrokenPipeError, match="serial output"):
            port.serial.flush()
    finally:
        os.close(write)
    with pytest.raises(OSError, match="Bad file descriptor"):
        port.serial.flush()


def test_once_closed_descriptors_are_left_alone(pipe: tuple[int, int], tmp_path: Path) -> None:
    port = Port(Serial(pipe[1]))
    port.send(b"kept back")
    port.serial.close()
    assert port.serial.flush()
    port.send(b"more\n")
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 100)
    assert port.serial.input(b"typed") == 5


def test_processors_may_write_at_the_same_time(port: Port) -> None:
    threads = [threading.Thread(target=port.send, args=(bytes([c]) * 1000,)) for c in b"abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    output = port.serial.output
    assert sorted(output) == sorted(b"abcd" * 1000)

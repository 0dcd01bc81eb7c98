"""The GDB remote protocol without a machine: frames, requests, and what gdb is told of the registers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.errors import SpecError
from minicontainer.kvm.debug.gdb import parse_address
from minicontainer.kvm.debug.gdb.commands import CONTINUE, STEP, Commands, Disconnect, Resume, Stop
from minicontainer.kvm.debug.gdb.description import target_xml
from minicontainer.kvm.debug.gdb.packets import SIZE_MAX, Decoder, Signal, encode, escape, unescape
from minicontainer.kvm.debug.gdb.registers import layout
from minicontainer.kvm.memory import GuestMemoryError

# ---- frames


def test_a_frame_has_its_sum() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert encode(b"") == b"$#00"


def test_a_frame_is_taken_apart() -> None:
    assert Decoder().feed(b"+$qC#b4\x03-$g#67") == [Signal.ACK, b"qC", Signal.INTERRUPT, Signal.NAK, b"g"]
    assert Decoder().feed(b"$g#68$g#6z") == [Signal.BROKEN, Signal.BROKEN]


def test_what_means_something_is_escaped() -> None:
    assert escape(b"a#b$c}d*e") == b"a}\x03b}\x04c}]d}\ne"
    assert unescape(escape(bytes(range(256)))) == bytes(range(256))


def test_a_packet_whose_end_was_lost_does_not_swallow_the_next() -> None:
    assert Decoder().feed(b"$m100,4$qC#b4") == [b"qC"]


def test_a_packet_that_is_too_long_is_broken_and_dropped() -> None:
    decoder = Decoder()
    assert decoder.feed(b"$" + b"A" * (SIZE_MAX + 1) + b"#00") == [Signal.BROKEN]
    assert decoder.feed(b"$" + b"A" * SIZE_MAX + b"#%02x" % (65 * SIZE_MAX & 0xFF)) == [b"A" * SIZE_MAX]


@given(st.lists(st.binary(max_size=80), max_size=5), st.integers(1, 7))
def test_frames_come_through_in_pieces_of_any_size(contents: list[bytes], size: int) -> None:
    stream = b"".join(map(encode, contents))
    decoder = Decoder()
    got = [event for at in range(0, len(stream), size) for event in decoder.feed(stream[at : at + size])]
    assert got == contents


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"$", b"#", b"}", b"$m#", b"\x03", b"+$-"]), max_size=20))
def test_no_bytes_break_the_decoder(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        for event in decoder.feed(piece):
            assert isinstance(event, (bytes, Signal))
    assert decoder.feed(b"$#00$qC#b4")[-1] == b"qC"


# ---- requests


class FakeTarget:
    """Two processors with four registers of four bytes, and memory from 0x1000 to 0x2000."""

    def __init__(self) -> None:
        self.memory = bytearray(0x1000)
        self.registers = [bytearray(16), bytearray(16)]
        self.breakpoints: list[tuple[int, str]] = []
        self.jumps: list[tuple[int, int]] = []

    def processors(self) -> Sequence[int]:
        return range(2)

    def describe(self, number: int) -> str:
        return f"processor {number}"

    def description(self) -> bytes:
        return b"<target>}</target>"

    def read_registers(self, number: int) -> bytes:
        return bytes(self.registers[number])

    def write_registers(self, number: int, raw: bytes) -> None:
        self.registers[number][: len(raw)] = raw

    def read_register(self, number: int, register: int) -> bytes:
        if register > 3:
            raise IndexError(register)
        return bytes(self.registers[number][4 * register : 4 * register + 4])

    def write_register(self, number: int, register: int, raw: bytes) -> None:
        if register > 3 or len(raw) != 4:
            raise ValueError(register)
        self.registers[number][4 * register : 4 * register + 4] = raw

    def jump(self, number: int, address: int) -> None:
        self.jumps.append((number, address))

    def read(self, number: int, address: int, length: int) -> bytes:
        if not 0x1000 <= address < 0x2000:
            raise GuestMemoryError(hex(address))
        return bytes(self.memory[address - 0x1000 : address - 0x1000 + length])

    def write(self, number: int, address: int, data: bytes) -> None:
        if not 0x1000 <= address <= address + len(data) <= 0x2000:
            raise GuestMemoryError(hex(address))
        self.memory[address - 0x1000 : address - 0x1000 + len(data)] = data

    def add_breakpoint(self, address: int, kind: str) -> None:
        self.breakpoints.append((address, kind))

    def remove_breakpoint(self, address: int, kind: str) -> None:
        self.breakpoints.remove((address, kind))


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def commands(target: FakeTarget) -> Commands:
    return Commands(target)


def test_memory_is_read_and_written(commands: Commands, target: FakeTarget) -> None:
    assert commands.answer(b"M1000,3:010203") == b"OK"
    assert commands.answer(b"m1000,4") == b"01020300"
    assert commands.answer(b"X1001,2:\xff#") == b"OK"
    assert target.memory[:4] == b"\x01\xff#\0"
    assert commands.answer(b"m1ffe,8") == b"0000"  # as far as there is memory
    assert len(commands.answer(b"m1000,ffffffff")) <= SIZE_MAX


@pytest.mark.parametrize("packet", [b"m0,4", b"M1ffe,3:010203", b"X2000,1:a"])
def test_where_no_memory_is_it_says_so(commands: Commands, packet: bytes) -> None:
    assert commands.answer(packet) == b"E0e"


@pytest.mark.parametrize("packet", [b"M1000,3:01", b"p9", b"P1=01", b"T7", b"Hg3", b"vCont;s:9"])
def test_what_cannot_be_is_an_error(commands: Commands, packet: bytes) -> None:
    assert commands.answer(packet) == b"E16"


@pytest.mark.parametrize(
    "packet",
    [b"", b"m", b"m1000", b"m1000,4x", b"m-1,4", b"m 1,4", b"Z2,1000,4", b"vMustReplyEmpty", b"vCont;t", b"R", b"p"],
)
def test_what_is_unknown_or_has_no_form_is_not_supported(commands: Commands, packet: bytes) -> None:
    assert commands.answer(packet) == b""


def test_registers_are_of_the_thread_that_was_chosen(commands: Commands, target: FakeTarget) -> None:
    assert commands.answer(b"Hg2") == b"OK"
    assert commands.answer(b"P1=0a0b0c0d") == b"OK"
    assert commands.answer(b"p1") == b"0a0b0c0d"
    assert commands.answer(b"g") == b"000000000a0b0c0d0000000000000000"
    assert target.registers[0] == bytes(16)
    assert commands.answer(b"Hg0") == b"OK"
    assert commands.answer(b"p1") == b"00000000"
    assert commands.answer(b"G01") == b"OK"
    assert target.registers[0][0] == 1


def test_threads_are_processors(commands: Commands) -> None:
    assert commands.answer(b"qfThreadInfo") == b"m1,2"
    assert commands.answer(b"qsThreadInfo") == b"l"
    assert commands.answer(b"qThreadExtraInfo,2") == b"processor 1".hex().encode()
    assert commands.answer(b"T2") == b"OK"
    assert commands.answer(b"qC") == b"QC1"


def test_a_stop_reply_has_the_features_of_the_client(commands: Commands) -> None:
    assert commands.stopped(Stop(1, 5, "swbreak")) == b"T05thread:2;"
    assert commands.answer(b"qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386") == (
        b"PacketSize=4000;qXfer:features:read+;QStartNoAckMode+;swbreak+;hwbreak+;vContSupported+"
    )
    assert commands.stopped(Stop(1, 5, "swbreak")) == b"T05thread:2;swbreak:;"
    assert commands.answer(b"?") == b"T05thread:2;swbreak:;"
    assert commands.answer(b"qC") == b"QC2"


def test_breakpoints(commands: Commands, target: FakeTarget) -> None:
    assert commands.answer(b"Z0,1000,1") == commands.answer(b"Z1,ffffffff81000000,1") == b"OK"
    assert target.breakpoints == [(0x1000, "swbreak"), (0xFFFFFFFF81000000, "hwbreak")]
    assert commands.answer(b"z0,1000,1") == b"OK"
    assert target.breakpoints == [(0xFFFFFFFF81000000, "hwbreak")]


@pytest.mark.parametrize(
    ("packet", "actions"),
    [
        (b"c", {0: CONTINUE, 1: CONTINUE}),
        (b"s", {0: STEP, 1: CONTINUE}),
        (b"S05", {0: STEP, 1: CONTINUE}),
        (b"vCont;c", {0: CONTINUE, 1: CONTINUE}),
        (b"vCont;s:2;c", {0: CONTINUE, 1: STEP}),
        (b"vCont;s:2", {1: STEP}),
        (b"vCont;C05:1;s:-1", {0: CONTINUE, 1: STEP}),
    ],
)
def test_going_on(commands: Commands, packet: bytes, actions: dict[int, str]) -> None:
    assert commands.answer(packet) == Resume(actions)


def test_going_on_elsewhere(commands: Commands, target: FakeTarget) -> None:
    assert commands.answer(b"Hc2") == b"OK"
    assert commands.answer(b"s1234") == Resume({0: CONTINUE, 1: STEP})
    assert target.jumps == [(1, 0x1234)]


def test_leaving(commands: Commands) -> None:
    assert commands.answer(b"D") == Disconnect(b"OK")
    assert commands.answer(b"k") == Disconnect(b"", kill=True)
    assert commands.answer(b"vKill;1") == Disconnect(b"OK", kill=True)


def test_the_description_is_read_in_parts(commands: Commands) -> None:
    assert commands.answer(b"qXfer:features:read:target.xml:0,5") == b"m<targ"
    assert commands.answer(b"qXfer:features:read:target.xml:5,100") == b"let>}</target>"
    assert commands.answer(b"qXfer:features:read:target.xml:100,5") == b"l"


LETTERS = st.sampled_from([bytes([letter]) for letter in b"?gGpPmMXcCsSvHTDkzZqQ0123456789abcdef,:;=-."])
WORDS = "m M X G P p Z0 z1 H Hg c s vCont ;c ;s: qXfer:features:read:target.xml: qThreadExtraInfo, T , : = 0 1000 -1 ff"
NEARLY = st.lists(st.sampled_from(WORDS.encode().split()) | st.binary(max_size=6), max_size=8).map(b"".join)


@given(st.lists(NEARLY | LETTERS | st.binary(max_size=60), max_size=10))
@example([b"m" + b"f" * 16 + b",ffffffff", b"X0,0:", b"Hg" + b"f" * 8])
def test_no_packet_raises(packets: list[bytes]) -> None:
    target = FakeTarget()
    commands = Commands(target)
    target.remove_breakpoint = lambda address, kind: None  # type: ignore[method-assign]
    for packet in packets:
        answer = commands.answer(packet)
        assert isinstance(answer, (bytes, Resume, Disconnect))
        if isinstance(answer, bytes):
            assert len(answer) <= SIZE_MAX


# ---- registers


@pytest.mark.parametrize("wide", [True, False])
def test_the_description_is_a_document_of_all_registers(wide: bool) -> None:
    registers = layout(wide)
    root = ET.fromstring(target_xml(registers, wide))
    assert root.findtext("architecture") == ("i386:x86-64" if wide else "i386")
    assert [r.get("name") for r in root.iter("reg")] == [r.name for r in registers]
    assert [int(r.get("bitsize", 0)) for r in root.iter("reg")] == [r.bits for r in registers]


def test_registers_stand_where_gdb_has_them() -> None:
    """gdb/features/i386/64bit-core.xml and 32bit-core.xml; 57 and 41 registers with SSE."""
    wide, narrow = [r.name for r in layout(True)], [r.name for r in layout(False)]
    assert (wide[16], wide[17], wide[24], wide[32], wide[40], wide[56]) == (
        "rip",
        "eflags",
        "st0",
        "fctrl",
        "xmm0",
        "mxcsr",
    )
    assert (narrow[8], narrow[9], narrow[16], narrow[24], narrow[32], narrow[40]) == (
        "eip", "eflags", "st0", "fctrl", "xmm0", "mxcsr",
    )  # fmt: skip


# ---- the address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1234", ("127.0.0.1", 1234)),
        (":0", ("127.0.0.1", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ("[::1]:1", ("::1", 1)),
    ],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host:", "65536", "-1", "1x", "a:b", "123456", "²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SpecError, match=r"gdb.*PORT"):
        parse_address(text)

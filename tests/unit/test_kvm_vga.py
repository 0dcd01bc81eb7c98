"""The VGA: its registers, and what a monitor shows of the text memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import SpecError
from minicontainer.kvm import vga
from minicontainer.kvm.boot import pc
from minicontainer.kvm.boot.kernel import Entry
from minicontainer.kvm.bus import Access
from minicontainer.kvm.memory import GuestMemory
from minicontainer.kvm.screen import BLANK, GLYPHS, SIZE, Screen, text
from minicontainer.kvm.vga import Vga

Make = Callable[[], Screen]
CRTC, SEQUENCER, GRAPHICS, ATTRIBUTE, STATUS = 0x3D4, 0x3C4, 0x3CE, 0x3C0, 0x3DA
UNLOCKED = (0x11, 0x0E)  # the CRTC's bit that protects registers 0 to 7 is off


def write(card: Vga, port: int, value: int, size: int = 1) -> None:
    card.ports()[port](Access(port, size, True, value, 0))


def read(card: Vga, port: int, size: int = 1) -> int:
    value = card.ports()[port](Access(port, size, False, 0, 0))
    assert value is not None
    return value


def put(card: Vga, port: int, *registers: tuple[int, int]) -> None:
    """Writes registers behind an index port, as words."""
    for index, value in registers:
        write(card, port, value << 8 | index, 2)


def get(card: Vga, port: int, index: int) -> int:
    write(card, port, index)
    return read(card, port + 1)


def set_attribute(card: Vga, index: int, value: int, *, on: bool = True) -> None:
    read(card, STATUS)
    write(card, ATTRIBUTE, index | 0x20 * on)
    write(card, ATTRIBUTE, value)


@pytest.fixture
def screen() -> Iterator[Screen]:
    memory = GuestMemory("1M")
    yield Screen(memory)
    memory.close()


def put_text(screen: Screen, cell: int, characters: bytes, attribute: int = 7) -> None:
    raw = b"".join(bytes([character, attribute]) for character in characters)
    screen.memory.write(pc.TEXT + 2 * cell, raw)


# ---- registers


def test_the_ports_are_those_of_a_colour_vga() -> None:
    there = "3c0 3c1 3c2 3c4 3c5 3c6 3c7 3c8 3c9 3cc 3ce 3cf 3d4 3d5 3da"
    assert sorted(Vga().ports()) == [int(port, 16) for port in there.split()]


@pytest.mark.parametrize(("port", "last"), [(CRTC, 0x18), (SEQUENCER, 4), (GRAPHICS, 8)])
def test_a_register_is_read_as_it_was_written(port: int, last: int) -> None:
    card = Vga()
    put(card, CRTC, UNLOCKED)
    for index in range(last + 1):
        if (port, index) != (CRTC, UNLOCKED[0]):
            put(card, port, (index, 0xA0 + index))
            assert read(card, port) == index
            assert read(card, port + 1) == get(card, port, index) == 0xA0 + index
            assert read(card, port, 2) == (0xA0 + index) << 8 | index


def test_the_crtc_protects_its_timing() -> None:
    """All but the bit of line compare; and whoever sets a mode takes the protection off first."""
    card = Vga()
    put(card, CRTC, (0, 1), (6, 1), (7, 0x0F), (8, 1))
    assert [get(card, CRTC, index) for index in (0, 6, 7, 8)] == [0x5F, 0xBF, 0x0F, 1]
    put(card, CRTC, (7, 0xF0))
    assert get(card, CRTC, 7) == 0x1F
    put(card, CRTC, UNLOCKED, (0, 1), (7, 0xF0))
    assert [get(card, CRTC, index) for index in (0, 7)] == [1, 0xF0]


def test_the_attribute_controller_takes_index_and_data_in_turn() -> None:
    card = Vga()
    set_attribute(card, 0x11, 5)
    write(card, ATTRIBUTE, 0x32)  # the next index
    assert (read(card, ATTRIBUTE), read(card, ATTRIBUTE + 1)) == (0x32, vga.ATTRIBUTE[0x12])
    assert read(card, STATUS) in vga.STATUS  # expects an index again
    write(card, ATTRIBUTE, 0x31)
    assert read(card, ATTRIBUTE + 1) == 5
    write(card, ATTRIBUTE + 1, 9)  # can only be read
    assert read(card, ATTRIBUTE + 1) == 5


@pytest.mark.parametrize("bit", [0x01, 0x08])
def test_a_kernel_that_waits_for_a_retrace_gets_on(bit: int) -> None:
    card = Vga()
    found = [read(card, STATUS) for _ in range(16)]
    assert {bool(value & bit) for value in found[:4]} == {False, True}
    assert not set(found) - {0, 1, 9}
    assert 1 in found


def test_colours_are_read_as_they_were_written() -> None:
    card = Vga()
    write(card, 0x3C8, 254)
    for value in (1, 2, 0xFF, 4, 5, 6, 7, 8):  # the last colour, 0, only in part
        write(card, 0x3C9, value)
    assert (read(card, 0x3C8), read(card, 0x3C7)) == (0, 0)
    write(card, 0x3C7, 254)
    assert [read(card, 0x3C9) for _ in range(9)] == [1, 2, 0x3F, 4, 5, 6, 0, 0, 0]
    assert read(card, 0x3C7) == 3
    write(card, 0x3C6, 0x0F)
    assert read(card, 0x3C6) == 0x0F


def test_the_first_colours_are_those_of_an_ega() -> None:
    card, colours = Vga(), []
    for index in card.attribute.registers[:16]:
        write(card, 0x3C7, index)
        colours.append(" ".join(str(read(card, 0x3C9)) for _ in range(3)))
    dark = ["0 0 0", "0 0 42", "0 42 0", "0 42 42", "42 0 0", "42 0 42", "42 21 0", "42 42 42"]
    bright = ["21 21 21", "21 21 63", "21 63 21", "21 63 63", "63 21 21", "63 21 63", "63 63 21", "63 63 63"]
    assert colours == dark + bright


def test_miscellaneous_output_is_read_at_another_port() -> None:
    card = Vga()
    assert (read(card, 0x3CC), read(card, 0x3C2)) == (0x67, 0)
    write(card, 0x3C2, 0xE3)
    assert read(card, 0x3CC) == 0xE3


def test_where_a_wide_access_leaves_the_card_there_is_nothing() -> None:
    assert read(Vga(), STATUS, 4) >> 8 == 0xFFFFFF
    write(Vga(), STATUS, 0x12345678, 4)


# ---- the screen


def test_it_begins_blank(screen: Screen) -> None:
    frame = screen.frame()
    assert frame.rows == [BLANK * 80] * 25
    assert (frame.cursor, screen.cursor, frame.blinks, frame.hidden, screen.hidden) == ((0, 0), (0, 0), True, "", "")
    assert screen.text() == [""] * 25
    assert screen.memory.read(pc.TEXT, SIZE) == BLANK * (SIZE // 2)


def test_text_is_what_the_guest_wrote(screen: Screen) -> None:
    put_text(screen, 0, b"Hello  ")
    put_text(screen, 80 * 24 + 79, b"\xdb")
    assert screen.text() == ["Hello", *[""] * 23, " " * 79 + "█"]


def test_characters_are_those_of_code_page_437() -> None:
    assert len(GLYPHS) == 256
    assert text(bytes([0, 7, 1, 7, 0x10, 7, 0x41, 7, 0x7F, 7, 0x82, 7, 0xB3, 7, 0xE1, 7, 0xFF, 7])) == " ☺►A⌂é│ß "
    assert all(glyph.isprintable() for glyph in GLYPHS)
    assert len(set(GLYPHS)) == 254  # 0, 32 and 255 are blank


def test_a_scrolled_screen_begins_further_on(screen: Screen) -> None:
    put_text(screen, 80, b"second")
    put(screen.vga, CRTC, (0x0C, 0), (0x0D, 80))
    assert screen.text()[0] == "second"
    assert screen.cursor is None  # above it
    put(screen.vga, CRTC, (0x0E, 0), (0x0F, 165))
    assert screen.cursor == (1, 5)


def test_the_end_of_the_memory_is_followed_by_its_beginning(screen: Screen) -> None:
    put_text(screen, 0x4000 - 2, b"ab")
    put_text(screen, 0, b"cd")
    put(screen.vga, CRTC, (0x0C, 0x3F), (0x0D, 0xFE), (0x0E, 0), (0x0F, 1))
    assert screen.text()[0] == "abcd"
    assert screen.cursor == (0, 3)


@pytest.mark.parametrize(
    ("registers", "cursor"),
    [
        ([(0x0F, 81)], (1, 1)),
        ([(0x0E, 7), (0x0F, 0xCF)], (24, 79)),
        ([(0x0E, 7), (0x0F, 0xD0)], None),  # below
        ([(0x0A, 0x2D)], None),  # off
        ([(0x0A, 0x0F), (0x0B, 0x0E)], None),  # ends before it begins
        ([(0x09, 0x47)], None),  # begins below a character of 8 lines
        ([(0x09, 0x47), (0x0A, 6), (0x0B, 7)], (0, 0)),
        ([(0x0A, 0), (0x0B, 0x0F)], (0, 0)),
    ],
)
def test_the_cursor(screen: Screen, registers: list[tuple[int, int]], cursor: tuple[int, int] | None) -> None:
    put(screen.vga, CRTC, *registers)
    assert screen.cursor == cursor


@pytest.mark.parametrize(
    ("registers", "shape"),
    [
        ([(0x09, 0x4F)], (80, 25)),
        ([(0x09, 0x47)], (80, 50)),
        ([(0x09, 0xC7)], (80, 25)),  # each line twice
        ([UNLOCKED, (0x01, 39), (0x13, 20)], (40, 25)),
        ([UNLOCKED, (0x07, 0x3E), (0x12, 0xDF)], (80, 30)),
        ([UNLOCKED, (0x07, 0), (0x12, 0)], (80, 1)),
    ],
)
def test_the_shape_is_what_the_crtc_says(
    screen: Screen, registers: list[tuple[int, int]], shape: tuple[int, int]
) -> None:
    put(screen.vga, CRTC, *registers)
    rows = screen.frame().rows
    assert (len(rows[0]) // 2, len(rows)) == shape


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: put(card, GRAPHICS, (6, 0x05)), "graphics"),
        (lambda card: put(card, SEQUENCER, (1, 0x20)), "screen off"),
        (lambda card: set_attribute(card, 0, 0, on=False), "palette"),
    ],
)
def test_a_screen_that_shows_no_text_says_why(screen: Screen, change: Callable[[Vga], None], says: str) -> None:
    put_text(screen, 0, b"Hello")
    change(screen.vga)
    assert says in screen.hidden
    assert (screen.text(), screen.cursor, screen.frame().rows) == ([], None, [])


def test_blinking_can_be_bright(screen: Screen) -> None:
    set_attribute(screen.vga, 0x10, 0x04)
    assert not screen.frame().blinks


@pytest.mark.parametrize("size", ["4k", "736k", "764k"])
def test_its_memory_must_be_there(size: str) -> None:
    memory = GuestMemory(size)
    with pytest.raises(SpecError, match=r"^screen: is at 0xb8000, and memory ends at 0x\w+ \(--memory 1m\)$"):
        Screen(memory)
    memory.close()


def test_nothing_else_is_put_there(screen: Screen) -> None:
    entry = Entry("flat", "real", 0x1000, {}, [(0x1000, 100)])
    assert screen.reserve(entry).used == [(0x1000, 100), (0xB8000, 0x8000)]
    on_a_pc = entry._replace(used=[*pc.USED])
    assert screen.reserve(on_a_pc) == on_a_pc
    wrong = entry._replace(used=[(0x90000, 0x30000)])
    with pytest.raises(SpecError, match=r"^screen: is at 0xb8000, and the kernel is at 0x90000 to 0xc0000"):
        screen.reserve(wrong)


# ---- whatever a kernel does


ACCESSES = st.tuples(
    st.sampled_from(sorted(Vga().ports())),
    st.sampled_from([1, 1, 2, 2, 4]),
    st.booleans(),
    st.one_of(st.integers(0, 0x1F), st.integers(0, 2**32 - 1)),
)


@given(st.lists(ACCESSES, max_size=60), st.binary(max_size=200))
def test_no_access_breaks_it(accesses: list[tuple[int, int, bool, int]], written: bytes) -> None:
    memory = GuestMemory("1M")
    screen = Screen(memory)
    ports = screen.vga.ports()
    for port, size, is_write, value in accesses:
        found = ports[port](Access(port, size, is_write, value % (1 << 8 * size), 0))
        assert found is not None
        assert 0 <= found < 1 << 8 * size
    memory.write(pc.TEXT, written)
    frame = screen.frame()
    assert bool(frame.hidden) == (frame.rows == [])
    assert len(set(map(len, frame.rows))) <= 1
    assert all(0 < len(row) <= 512 for row in frame.rows)
    if frame.cursor is not None:
        assert frame.cursor[0] < len(frame.rows)
        assert frame.cursor[1] < len(frame.rows[0]) // 2
    assert all(line.isprintable() for line in screen.text())
    memory.close()

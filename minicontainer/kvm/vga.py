"""The registers of a VGA, behind its ports, as a BIOS leaves them in mode 3: text, 80 columns, 25 lines, 16 colours.

Registers and their bits have the names of FreeVGA and of "IBM VGA Technical Reference" (1992). There are the ports for
colour only, 0x3d4 to 0x3da; those for monochrome, 0x3b4 to 0x3ba, are not there. What the registers mean for the
picture is in kvm/screen.py.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minicontainer.kvm.bus import Access, Handler

# Registers in mode 3.
MISCELLANEOUS = 0x67
SEQUENCER = bytes.fromhex("03 00 03 00 02")
CRTC = bytes.fromhex("5f 4f 50 82 55 81 bf 1f 00 4f 0d 0e 00 00 00 00 9c 8e 8f 28 1f 96 b9 a3 ff")
GRAPHICS = bytes.fromhex("00 00 00 00 00 10 0e 00 ff")
ATTRIBUTE = bytes.fromhex("00 01 02 03 04 05 14 07 38 39 3a 3b 3c 3d 3e 3f 0c 00 0f 08 00")
# Indices of registers.
CLOCKING_MODE = 0x01  # sequencer
END_HORIZONTAL_DISPLAY, OVERFLOW, MAXIMUM_SCAN_LINE, CURSOR_START, CURSOR_END = 0x01, 0x07, 0x09, 0x0A, 0x0B  # CRTC
START_ADDRESS, CURSOR_LOCATION, VERTICAL_RETRACE_END = 0x0C, 0x0E, 0x11
VERTICAL_DISPLAY_END, OFFSET = 0x12, 0x13
GRAPHICS_MISCELLANEOUS = 0x06  # graphics controller
MODE_CONTROL = 0x10  # attribute controller
# Bits of registers.
SCREEN_DISABLE = 0x20  # clocking mode
PROTECT, LINE_COMPARE_8 = 0x80, 0x10  # vertical retrace end: protects indices 0 to 7, but for that bit of overflow
ALPHANUMERIC_DISABLE = 0x01  # graphics miscellaneous
PALETTE_SOURCE = 0x20  # attribute controller's index: 0 while the processor sets the palette, with the screen off
DISPLAY_DISABLED, VERTICAL_RETRACE = 0x01, 0x08  # input status 1
# What input status 1 is read as, in turn: whatever a kernel waits for soon comes, a horizontal retrace alone too.
STATUS = 0, DISPLAY_DISABLED, 0, DISPLAY_DISABLED | VERTICAL_RETRACE
COLOURS = 256


class Indexed:
    """Registers behind a port for their index and one for their data. ``bits``: of the index."""

    __slots__ = ("_mask", "index", "registers")

    def __init__(self, initial: bytes, bits: int) -> None:
        self.index, self._mask = 0, (1 << bits) - 1
        self.registers = bytearray(initial.ljust(1 << bits, b"\0"))

    def select(self, value: int) -> None:
        """Sets the index."""
        self.index = value & self._mask

    def selected(self) -> int:
        """The index."""
        return self.index

    def read(self) -> int:
        """Reads the register."""
        return self.registers[self.index]

    def write(self, value: int) -> None:
        """Writes the register."""
        self.registers[self.index] = value


class Crtc(Indexed):
    """The CRT controller: timing, the part of memory that is shown, the cursor."""

    __slots__ = ()

    def write(self, value: int) -> None:
        """Writes the register, unless it is protected."""
        if self.index <= OVERFLOW and self.registers[VERTICAL_RETRACE_END] & PROTECT:
            if self.index != OVERFLOW:
                return
            value = self.registers[OVERFLOW] & ~LINE_COMPARE_8 | value & LINE_COMPARE_8
        self.registers[self.index] = value

    def word(self, index: int) -> int:
        """A value of two registers, the high one first."""
        return self.registers[index] << 8 | self.registers[index + 1]


class Attribute(Indexed):
    """The attribute controller. Its port for writing takes an index and data in turn."""

    __slots__ = ("expects_data", "source")

    def __init__(self) -> None:
        super().__init__(ATTRIBUTE, 5)
        self.expects_data, self.source = False, PALETTE_SOURCE

    def write(self, value: int) -> None:
        """Takes an index, or data."""
        if self.expects_data:
            super().write(value)
        else:
            self.select(value)
            self.source = value & PALETTE_SOURCE
        self.expects_data = not self.expects_data

    def selected(self) -> int:
        """The index, with the bit beside it."""
        return self.index | self.source


class Dac:
    """The colours: three components of 6 bits each, red, green and blue."""

    __slots__ = ("_read_at", "_write_at", "_written", "colours", "is_read", "mask")

    def __init__(self) -> None:
        self.colours = bytearray(first_colours().ljust(3 * COLOURS, b"\0"))
        self.mask, self.is_read = 0xFF, False
        self._read_at = self._write_at = 0  # the next component
        self._written = bytearray(3)

    def set_mask(self, value: int) -> None:
        """Sets the PEL mask."""
        self.mask = value

    def get_mask(self) -> int:
        """The PEL mask."""
        return self.mask

    def read_from(self, value: int) -> None:
        """Sets the colour that is read next."""
        self._read_at, self.is_read = 3 * value, True

    def write_from(self, value: int) -> None:
        """Sets the colour that is written next."""
        self._write_at, self.is_read = 3 * value, False

    def state(self) -> int:
        """Which of the two was set last: 3 for reading, 0 for writing."""
        return 3 if self.is_read else 0

    def next_written(self) -> int:
        """The colour that is written next."""
        return self._write_at // 3

    def read(self) -> int:
        """A component."""
        value = self.colours[self._read_at]
        self._read_at = (self._read_at + 1) % len(self.colours)
        return value

    def write(self, value: int) -> None:
        """A component. The third one changes the colour."""
        part = self._write_at % 3
        self._written[part] = value & 0x3F
        if part == 2:
            self.colours[self._write_at - 2 : self._write_at + 1] = self._written
        self._write_at = (self._write_at + 1) % len(self.colours)


def first_colours() -> bytes:
    """The colours 0 to 63 in mode 3: bits 2, 1 and 0 are red, green and blue of two thirds, bits 5, 4 and 3 of one."""
    return bytes([(n >> bit & 1) * 42 + (n >> bit + 3 & 1) * 21 for n in range(64) for bit in (2, 1, 0)])


class Vga:
    """The registers of one machine."""

    def __init__(self) -> None:
        self.miscellaneous = MISCELLANEOUS
        self.sequencer, self.graphics = Indexed(SEQUENCER, 3), Indexed(GRAPHICS, 4)
        self.crtc, self.attribute, self.dac = Crtc(CRTC, 5), Attribute(), Dac()
        self._status = 0
        dac = self.dac
        self._readers: dict[int, Callable[[], int]] = {
            0x3C0: self.attribute.selected, 0x3C1: self.attribute.read, 0x3C2: lambda: 0,  # input status 0
            0x3C4: self.sequencer.selected, 0x3C5: self.sequencer.read,
            0x3C6: dac.get_mask, 0x3C7: dac.state, 0x3C8: dac.next_written, 0x3C9: dac.read,
            0x3CC: lambda: self.miscellaneous, 0x3CE: self.graphics.selected, 0x3CF: self.graphics.read,
            0x3D4: self.crtc.selected, 0x3D5: self.crtc.read, 0x3DA: self._input_status,
        }  # fmt: skip
        self._writers: dict[int, Callable[[int], None]] = {
            0x3C0: self.attribute.write, 0x3C2: self._set_miscellaneous,
            0x3C4: self.sequencer.select, 0x3C5: self.sequencer.write,
            0x3C6: dac.set_mask, 0x3C7: dac.read_from, 0x3C8: dac.write_from, 0x3C9: dac.write,
            0x3CE: self.graphics.select, 0x3CF: self.graphics.write,
            0x3D4: self.crtc.select, 0x3D5: self.crtc.write,
        }  # fmt: skip

    def ports(self) -> dict[int, Handler]:
        """The handlers for the bus."""
        return dict.fromkeys(self._readers, self.access)

    def access(self, access: Access) -> int:
        """An access, of one or more bytes: a word at an index port sets index and data."""
        value = 0
        for number in range(access.size):
            port = access.address + number
            if not access.write:
                read = self._readers.get(port)
                value |= (0xFF if read is None else read()) << 8 * number
            elif port in self._writers:
                self._writers[port](access.value >> 8 * number & 0xFF)
        return value

    def _set_miscellaneous(self, value: int) -> None:
        self.miscellaneous = value

    def _input_status(self) -> int:
        self.attribute.expects_data = False
        self._status = (self._status + 1) % len(STATUS)
        return STATUS[self._status]

    def hides(self) -> str:
        """Why a monitor shows no text; "": it does."""
        if self.graphics.registers[GRAPHICS_MISCELLANEOUS] & ALPHANUMERIC_DISABLE:
            return "the kernel has switched to graphics (graphics controller, index 6, bit 0), and only text is shown"
        if self.sequencer.registers[CLOCKING_MODE] & SCREEN_DISABLE:
            return "the kernel has switched the screen off (sequencer, index 1, bit 5)"
        if not self.attribute.source:
            return "the screen is off while the palette is set (port 0x3c0, bit 5 of the index is 0)"
        return ""

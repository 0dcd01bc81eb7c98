"""A guest that writes to its text screen: read by the library, printed by the command line, drawn on a terminal."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import kernels as k
import pytest
from box import CLI, Done, refusal
from ptys import Session, session
from supplies import Run

from minicontainer.errors import SpecError
from minicontainer.kvm import Machine

pytestmark = pytest.mark.needs("kvm")

PATIENCE = 60.0
TEXT = b"\xb8\x00\xb8\x8e\xc0"  # mov ax, 0xb800; mov es, ax
CRTC = b"\xba\xd4\x03"  # mov dx, 0x3d4
HLT, LOOP = b"\xf4", b"\xeb\xfe"
BEGIN, END = "\x1b[?1049h", "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
Write = Callable[[bytes], Path]
Boot = Callable[..., Done]


def show(cell: int, text: str, attribute: int = 7) -> bytes:
    """mov word es:[2 * cell], ... of each character."""
    stores = (b"\x26\xc7\x06" + struct.pack("<HBB", 2 * at, ord(c), attribute) for at, c in enumerate(text, cell))
    return b"".join(stores)


def crtc(index: int, value: int) -> bytes:
    """mov ax, value << 8 | index; out dx, ax"""
    return b"\xb8" + bytes([index, value]) + b"\xef"


HELLO = TEXT + show(0, "Hello", 0x1F) + show(162, "there") + CRTC + crtc(0x0F, 167) + crtc(0x0E, 0)
GRAPHICS = TEXT + show(0, "Hello") + b"\xba\xce\x03" + crtc(6, 5)  # mov dx, 0x3ce


def printing(text: bytes) -> bytes:
    """A boot sector that prints by INT 10h with AH = 0Eh what is behind its code."""
    code = bytes.fromhex("31 c0 8e d8 be 40 7c ac 84 c0 74 08 b4 0e 31 db cd 10 eb f3 fa f4")
    return k.boot_sector(code.ljust(0x40, b"\0") + text + b"\0")


def calling(*calls: Sequence[int], end: bytes = HLT) -> bytes:
    """A boot sector that calls INT 10h with these AX, CX, DX."""
    return k.boot_sector(
        b"".join(b"\xb8%b\xb9%b\xba%b\xcd\x10" % tuple(struct.pack("<H", v) for v in call) for call in calls) + end
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(code)``: a file that holds it."""

    def make(code: bytes) -> Path:
        path = tmp_path / "kernel.bin"
        path.write_bytes(code)
        return path

    return make


@pytest.fixture
def boot(minicontainer_cli: Run) -> Boot:
    """``boot(WORD..., timeout=...)``"""
    return lambda *words, **more: minicontainer_cli("kvm-boot", *words, **more)


def shown(code: bytes, **options: str | int) -> list[str]:
    """The lines of the screen at the end, without the empty ones behind the last."""
    with Machine(screen=True) as machine:
        machine.load(code, **options)  # type: ignore[arg-type]
        result = machine.run(timeout=PATIENCE)
        assert (result.reason, result.output) == ("halt", b""), result
        assert machine.screen is not None
        return "\n".join(machine.screen.text()).rstrip("\n").split("\n")


# ---- from Python


def test_the_screen_is_read_while_the_machine_is_there() -> None:
    with Machine(screen=True) as machine:
        assert machine.screen is not None
        assert machine.screen.text() == [""] * 25
        machine.load(HELLO + HLT)
        result = machine.run(timeout=PATIENCE)
        assert result.reason == "halt"
        assert {reason: exit_.count for reason, exit_ in result.exits.items()} == {"io": 2, "hlt": 1}
        assert machine.screen.text()[:4] == ["Hello", "", "  there", ""]
        assert machine.screen.cursor == (2, 7)
        assert machine.screen.frame().rows[0][:2] == b"H\x1f"


def test_a_machine_has_one_only_on_request() -> None:
    with Machine() as machine:
        assert machine.screen is None
        machine.load(b"\xba\xd4\x03\xec\xe6\xf4")  # mov dx, 0x3d4; in al, dx; out 0xf4, al
        assert machine.run(timeout=PATIENCE).returncode == 0xFF


def test_a_retrace_comes() -> None:
    """in al, dx; test al, 8; jnz or jz to in."""
    assert shown(b"\xba\xda\x03\xec\xa8\x08\x75\xfb\xec\xa8\x08\x74\xfb" + TEXT + show(0, "x") + HLT) == ["x"]


def test_tables_and_kernels_keep_clear_of_it() -> None:
    long = b"\x66\xc7\x04\x25\x00\x80\x0b\x00h\x07\xf4"  # mov word [0xb8000], ...
    assert shown(long, mode="long") == ["h"]
    assert shown(long.ljust(0xB0000), mode="long", load_address=0x2000) == ["h"]
    with Machine(screen=True) as machine:
        machine.load(HLT * 0x1000, mode="protected", load_address=0xB7800)
        with pytest.raises(SpecError, match=r"^screen: is at 0xb8000, and the kernel is at 0xb7800 to 0xb8800"):
            machine.run()


@pytest.mark.parametrize("bios_data", [False, True])
def test_a_machine_with_firmware_has_one_too(bios_data: bool) -> None:
    with Machine(screen=True, bios_data=bios_data) as machine:
        machine.load(b"\xa0\x49\x04\xe6\xf4")  # mov al, [0x449]; out 0xf4, al
        assert machine.run(timeout=PATIENCE).returncode == 3 * bios_data


# ---- the BIOS


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"one\r\ntwo", ["one", "two"]),
        (b"abc\rx\ny\x07z", ["xbc", " yz"]),
        (b"ab\x08\x08\x08c", ["cb"]),
        (b"x" * 161, ["x" * 80, "x" * 80, "x"]),
        (b"".join(b"%d\r\n" % n for n in range(30)), [str(n) for n in range(6, 30)]),
        (b"\n" * 30 + b"x" * 80 + b"y", [*[""] * 23, "x" * 80, "y"]),
    ],
)
def test_the_bios_prints_on_it(text: bytes, lines: list[str]) -> None:
    assert shown(printing(text)) == lines


def test_the_bios_moves_the_cursor_and_clears() -> None:
    code = calling((0x0E78, 0, 0), (0x0100, 0x0607, 0), (0x0200, 0, 0x0305), (0x0E79, 0, 0), (0x0300, 0, 0))
    with Machine(screen=True) as machine:
        machine.load(code)
        registers = machine.run(timeout=PATIENCE).registers
        assert (registers["rcx"] & 0xFFFF, registers["rdx"] & 0xFFFF) == (0x0607, 0x0306)
        assert machine.screen is not None
        assert machine.screen.text()[:5] == ["x", "", "", "     y", ""]
        assert machine.screen.cursor == (3, 6)
        assert bytes(machine.screen.vga.crtc.registers[0x0A:0x0C]) == b"\x06\x07"
    assert shown(calling((0x0E78, 0, 0), (0x0003, 0, 0), (0x0E79, 0, 0))) == ["y"]
    assert shown(calling((0x0E78, 0, 0), (0x0013, 0, 0), (0x0E79, 0, 0))) == ["xy"]  # a mode of graphics


def test_the_bios_prints_to_the_serial_port_without_one() -> None:
    with Machine() as machine:
        machine.load(printing(b"one"))
        assert machine.run(timeout=PATIENCE).output == b"one"


# ---- the command line, without a terminal


def test_the_last_screen_is_printed(boot: Boot, write: Write) -> None:
    done = boot(write(HELLO + HLT), "--screen")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n\n  there\n", "")


def test_an_empty_screen_is_nothing(boot: Boot, write: Write) -> None:
    done = boot(write(HLT), "--screen")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_screen_is_printed_whatever_the_end(boot: Boot, write: Write) -> None:
    done = boot(write(HELLO + LOOP), "--screen", "--timeout", "0.5")
    assert done.stdout == "Hello\n\n  there\n"
    assert (done.returncode, done.stderr.count("\n")) == (124, 1)
    assert boot(write(HELLO + b"\xb0\x2a\xe6\xf4"), "--screen").returncode == 42


def test_graphics_are_named_instead_of_shown(boot: Boot, write: Write) -> None:
    done = boot(write(GRAPHICS + HLT), "--screen")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("minicontainer: screen: the kernel has switched to graphics (graphics controller")
    assert done.stderr.count("\n") == 1


def test_the_serial_port_is_elsewhere(boot: Boot, tmp_path: Path) -> None:
    file = tmp_path / "said"
    for words in ((), ("--serial", "none"), ("--serial", str(file))):
        done = boot("hello", "--screen", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text(encoding="utf-8") == "Hello from real mode.\n"
    done = boot("hello", "--screen", "--serial", "stdio")
    refusal(done, 125, ["--serial stdio: is where --screen is shown (none, or a file)"])


def test_what_is_typed_goes_to_the_serial_port(boot: Boot, tmp_path: Path) -> None:
    file = tmp_path / "said"
    done = boot("echo", "--screen", "--serial", file, "--timeout", "60", input="typed\x04")
    assert (done.returncode, done.stdout) == (0, "")
    assert file.read_text(encoding="utf-8").endswith("typed")


def test_it_needs_memory(boot: Boot) -> None:
    done = boot("hello", "--screen", "--memory", "64k")
    refusal(done, 125, ["--screen: is at 0xb8000, and memory ends at 0x10000 (--memory 1m)"])


def test_a_full_disk_is_reported(boot: Boot, write: Write) -> None:
    with open("/dev/full", "wb") as full:
        done = boot(write(HELLO + HLT), "--screen", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125
    assert "No space left on device" in done.stderr


def test_a_signal_leaves_the_screen_too(write: Write) -> None:
    command = [*CLI, "kvm-boot", str(write(HELLO + b"\xb0\n\xe6\xe9" + LOOP)), "--screen", "--serial", "/dev/stderr"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read(1) == b"\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"Hello\n\n  there\n"
        assert process.wait(60) == 143


# ---- at a terminal


def drawn(opened: Session) -> None:
    """Waits for the screen of HELLO, which may come after an empty one."""
    opened.expect(r"\x1b\[\?1049h")
    opened.expect(r"\x1b\[1;1H\x1b\[0;97;44mHello\x1b\[0;37;40m +\x1b")
    opened.expect(r"\[3;1H\x1b\[0;37;40m  there ")


def left(opened: Session) -> None:
    """The terminal is as before, and what is left on it is the screen as text."""
    assert opened.seen.count(b"\x1b[?1049h") == 0
    assert opened.seen.decode().partition(END)[2].startswith("Hello\r\n\r\n  there\r\n")
    with session("kvm-boot", "--list") as other:
        other.ends()
        assert opened.attributes() == other.attributes()


def test_the_screen_is_drawn(write: Write) -> None:
    with session("kvm-boot", "--screen", write(HELLO + LOOP)) as opened:
        drawn(opened)
        opened.expect(r"\[3;8H\x1b\[\?25h")
        assert opened.is_raw()
        opened.type("\x01x")
        assert opened.ends() == 0
        left(opened)


def test_a_guest_that_ends_at_once_is_seen(write: Write) -> None:
    with session("kvm-boot", "--screen", write(HELLO + HLT)) as opened:
        drawn(opened)
        assert opened.ends() == 0
        left(opened)


def test_changes_are_drawn(write: Write) -> None:
    """The guest counts in a cell: inc byte es:[0]; jmp back to it."""
    with session("kvm-boot", "--screen", write(TEXT + b"\x26\xfe\x06\x00\x00\xeb\xf9")) as opened:
        opened.expect(r"\x1b\[\?1049h")
        for _ in range(10):
            opened.expect(r"\x1b\[1;1H\x1b\[0;37;40m[^\x1b]")
        opened.type("\x01x")
        assert opened.ends() == 0


def test_help_is_shown_on_it(write: Write) -> None:
    with session("kvm-boot", "--screen", write(HELLO + LOOP)) as opened:
        opened.expect(r"\x1b\[24;1H\x1b\[0;30;47mminicontainer: Ctrl-A x ends the machine, Ctrl-A h helps")
        opened.type("\x01h")
        opened.expect(r"\x1b\[21;1H\x1b\[0;30;47mCtrl-A x   end the machine")
        opened.expect(r"\x1b\[2[1-4];1H\x1b\[0;37;40m ")  # it goes after a while
        opened.type("\x01x")
        assert opened.ends() == 0


def test_it_fits_a_terminal_of_any_size(write: Write) -> None:
    with session("kvm-boot", "--screen", write(HELLO + LOOP), rows=2, columns=3) as opened:
        opened.expect(r"\x1b\[\?1049h")
        opened.expect(r"\x1b\[2;1H\x1b\[0;30;47mmin")
        opened.set_size(50, 200)
        opened.expect(r"\x1b\[0m\x1b\[2J\x1b\[1;1H\x1b\[0;97;44mHello")
        opened.expect(r"\x1b\[26;1H\x1b\[0;30;47mminicontainer: ")
        opened.type("\x01x")
        assert opened.ends() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_the_terminal_is_restored_when_a_signal_ends_it(write: Write, number: int, code: int) -> None:
    with session("kvm-boot", "--screen", write(HELLO + LOOP)) as opened:
        drawn(opened)
        opened.process.send_signal(number)
        assert opened.ends() == code
        left(opened)


def test_an_error_is_below_what_is_left(write: Write) -> None:
    with session("kvm-boot", "--screen", write(HELLO + LOOP), "--timeout", "1") as opened:
        drawn(opened)
        assert opened.ends() == 124
        left(opened)
        assert opened.seen.decode().splitlines()[-1].startswith("minicontainer: --timeout 1: the time limit is reached")


def test_it_is_drawn_anew_after_a_stop(write: Write) -> None:
    with session("kvm-boot", "--screen", write(HELLO + LOOP)) as opened:
        drawn(opened)
        opened.process.send_signal(signal.SIGSTOP)
        opened.process.send_signal(signal.SIGCONT)
        opened.expect(r"\x1b\[2J\x1b\[1;1H\x1b\[0;97;44mHello")
        opened.type("\x01x")
        assert opened.ends() == 0
        left(opened)


def test_graphics_are_named_on_it(write: Write) -> None:
    with session("kvm-boot", "--screen", write(GRAPHICS + LOOP)) as opened:
        opened.expect(r"\x1b\[1;1H\x1b\[0;37;40mthe kernel has switched to graphics \(graphics controller")
        opened.type("\x01x")
        assert opened.ends() == 0
        assert opened.seen.decode().partition(END)[2].startswith("minicontainer: screen: the kernel has switched to")


def test_exits_that_are_reported_on_it_are_not_drawn_over(write: Write) -> None:
    with session("kvm-boot", "--screen", "--trace", write(HELLO + HLT)) as opened:
        assert opened.ends() == 0
        assert BEGIN.encode() not in opened.seen
        assert b"out 0x3d4 2 bytes" in opened.seen
        assert b"Hello\r\n\r\n  there\r\n" in opened.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_terminal_that_is_stopped_does_not_hold_up_the_end(write: Write, number: int | None) -> None:
    """Ctrl-S of whoever looks on: nothing more is taken from the terminal."""
    import termios

    with session("kvm-boot", "--screen", write(TEXT + b"\x26\xfe\x06\x00\x00\xeb\xf9"), "--timeout", "600") as opened:
        opened.expect(r"\x1b\[\?1049h")
        termios.tcflow(opened.slave, termios.TCOOFF)
        os.kill(opened.process.pid, number or signal.SIGINT)
        try:
            opened.process.wait(1)
        except subprocess.TimeoutExpired:
            pass  # restoring the terminal is tried for a while
        termios.tcflow(opened.slave, termios.TCOON)
        assert opened.ends() == 128 + (number or signal.SIGINT)
        assert END.encode() in opened.seen

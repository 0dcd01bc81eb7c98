"""INT 10h on the screen: what a loader writes by it, and by what a kernel's set-up code knows a VGA."""

from __future__ import annotations

import struct

import kernels as k
import pytest

from minicontainer.kvm import Machine

pytestmark = pytest.mark.needs("kvm")

AX, BX, CX, DX = b"\xb8", b"\xbb", b"\xb9", b"\xba"
NONE = 0x7777  # of registers that are left alone
HLT = b"\xf4"


def call(ax: int, bx: int = NONE, cx: int = NONE, dx: int = NONE) -> bytes:
    values = ((AX, ax), (BX, bx), (CX, cx), (DX, dx))
    return b"".join(code + struct.pack("<H", value) for code, value in values) + b"\xcd\x10"


def ran(*calls: bytes, screen: bool = True) -> tuple[list[bytes], dict[str, int]]:
    """The lines of the screen after these calls, and the registers."""
    with Machine(screen=screen) as machine:
        machine.load(k.boot_sector(b"".join(calls) + HLT))
        result = machine.run(timeout=20)
        assert result.reason == "halt", result
        rows = machine.screen.frame().rows if machine.screen is not None else []
        return rows, {name: result.registers[name] & 0xFFFF for name in ("rax", "rbx", "rcx", "rdx")}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ((0x0F00,), (0x5003, 0x0077, NONE)),  # 80 columns, mode 3, page 0
        ((0x1200, 0x0010), (0x1200, 0x0003, 0x0009)),
        ((0x1200, 0x0036), (0x1200, 0x0036, NONE)),
        ((0x1A00,), (0x1A1A, 0x0008, NONE)),
        ((0x1A01,), (0x1A01, NONE, NONE)),
    ],
    ids=["mode", "ega", "another of 12h", "display", "another of 1Ah"],
)
def test_by_what_a_vga_is_known(asked: tuple[int, ...], answer: tuple[int, int, int]) -> None:
    """As Linux's and Xen's video.S ask. Without a screen nothing answers."""
    rax, rbx, rcx = answer
    assert ran(call(*asked))[1] == {"rax": rax, "rbx": rbx, "rcx": rcx, "rdx": NONE}
    registers = dict(zip(("rax", "rbx"), asked, strict=False))
    assert ran(call(*asked), screen=False)[1] == {"rbx": NONE, "rcx": NONE, "rdx": NONE, **registers}


def test_characters_are_written_with_their_attribute() -> None:
    """As GRUB writes them: the cursor stays where it is."""
    rows, registers = ran(call(0x0200, 0, 0, 0x0102), call(0x0941, 0x001F, 3), call(0x0A42, 0x0044, 1), call(0x0E43))
    assert rows[1][:12] == b" \x07 \x07C\x1fA\x1fA\x1f \x07"
    assert registers == {"rax": 0x0E43, "rbx": NONE, "rcx": NONE, "rdx": NONE}
    assert rows[0] == rows[2] == b" \x07" * 80


def test_none_of_them_leaves_the_screen() -> None:
    rows, _ = ran(call(0x0200, 0, 0, 0x184F), call(0x0958, 0x0017, 0xFFFF), call(0x0959, 0x0017, 0))
    assert b"".join(rows) == b" \x07" * 1999 + b"X\x17"
    rows, _ = ran(call(0x0200, 0, 0, 0xFFFF), call(0x0958, 0x0017, 0xFFFF))
    assert b"".join(rows) == b" \x07" * 2000

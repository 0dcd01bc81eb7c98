"""Instructions as text: by capstone in the right width, and without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from minicontainer.kvm.debug import disassembly

CODE = bytes.fromhex("48 31 c0 90 90 90 90 90 90 f4")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    disassembly._engine.cache_clear()
    yield
    disassembly._engine.cache_clear()


def test_without_capstone_it_is_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    assert disassembly.text(CODE, 0x1000, 64) == "48 31 c0 90 90 90 90 90"


class FakeEngine:
    """capstone's Cs, for one instruction."""

    def __init__(self, arch: str, mode: int) -> None:
        assert arch == "x86"
        self.mode = mode

    def disasm_lite(self, code: bytes, address: int, count: int) -> list[tuple[int, int, str, str]]:
        known = {64: (3, "xor", "rax, rax"), 32: (1, "dec", "eax"), 16: (1, "ret", "")}
        size, mnemonic, operands = known[self.mode]
        return [(address, size, mnemonic, operands)][:count] if code[0] != 0xFF else []


@pytest.mark.parametrize(("bits", "text"), [(64, "xor rax, rax"), (32, "dec eax"), (16, "ret")])
def test_capstone_is_asked_in_the_width_of_the_code(monkeypatch: pytest.MonkeyPatch, bits: int, text: str) -> None:
    fake = SimpleNamespace(Cs=FakeEngine, CS_ARCH_X86="x86", CS_MODE_16=16, CS_MODE_32=32, CS_MODE_64=64)
    monkeypatch.setitem(sys.modules, "capstone", fake)
    assert disassembly.text(CODE, 0x1000, bits) == text
    assert disassembly.text(b"\xff\xff", 0x1000, bits) == "ff ff"  # what it does not know

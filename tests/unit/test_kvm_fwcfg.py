"""fw_cfg, read as firmware reads it: byte by byte, and by DMA."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import SpecError
from minicontainer.kvm.bus import Access, Bus
from minicontainer.kvm.fwcfg import FwCfg
from minicontainer.kvm.memory import GuestMemory

SELECTOR, DATA, HIGH, LOW = 0x510, 0x511, 0x514, 0x518
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
AT, TARGET = 0x1000, 0x2000


class Guest:
    """The other side of the bus."""

    def __init__(self, **files: bytes) -> None:
        self.memory = GuestMemory("64k")
        self.bus = Bus()
        self.device = FwCfg(self.memory, self.bus)
        for name, content in files.items():
            self.device.add(name, content)

    def access(self, port: int, size: int, value: int | None = None) -> int:
        handler = self.bus.ports[port]
        answer = handler(Access(port, size, value is not None, value or 0, 0))
        assert answer is not None
        return answer

    def read(self, key: int, length: int) -> bytes:
        self.access(SELECTOR, 2, key)
        return bytes(self.access(DATA, 1) for _ in range(length))

    def dma(self, control: int, length: int = 0, target: int = TARGET) -> int:
        """The control field afterwards."""
        self.memory.write(AT, struct.pack(">IIQ", control, length, target))
        self.access(LOW, 4, int.from_bytes(struct.pack(">I", AT), "little"))
        return int.from_bytes(self.memory.read(AT, 4), "big")

    def files(self) -> dict[str, tuple[int, int]]:
        """name -> key, size"""
        (count,) = struct.unpack(">I", self.read(0x19, 4))
        raw = self.read(0x19, 4 + 64 * count)[4:]
        entries = [struct.unpack_from(">IHH56s", raw, 64 * n) for n in range(count)]
        return {name.rstrip(b"\0").decode(): (key, size) for size, key, _, name in entries}


def test_signature_and_id() -> None:
    guest = Guest()
    assert guest.read(0, 6) == b"QEMU\0\0"
    assert guest.read(1, 4) == b"\3\0\0\0"  # the traditional interface, and DMA
    assert guest.read(3, 8) == struct.pack("<Q", 64 << 10)
    assert guest.read(0x7777, 2) == b"\0\0"
    big_endian = guest.access(HIGH, 4), guest.access(LOW, 4)
    assert struct.pack("<II", *big_endian) == b"QEMU CFG"
    guest.device.announce_cpus(3)
    assert guest.read(5, 2) == guest.read(15, 2) == b"\3\0"


def test_files_are_found_by_the_directory() -> None:
    guest = Guest(b=b"content", a=b"")
    guest.device.add("opt/org.example/answer", b"42")
    files = guest.files()
    assert {name: size for name, (_, size) in files.items()} == {"b": 7, "a": 0, "opt/org.example/answer": 2}
    assert guest.read(files["opt/org.example/answer"][0], 3) == b"42\0"
    assert guest.read(files["b"][0], 7) == b"content"


def test_a_dma_access_selects_reads_and_skips() -> None:
    guest = Guest(a=b"0123456789")
    key = guest.files()["a"][0]
    assert guest.dma(key << 16 | SELECT | READ, 4) == 0
    assert guest.memory.read(TARGET, 5) == b"0123\0"
    assert guest.dma(SKIP, 2) == 0
    assert guest.dma(READ, 8) == 0
    assert guest.memory.read(TARGET, 8) == b"6789\0\0\0\0"


def test_the_upper_half_of_an_address_is_used_once() -> None:
    guest = Guest()
    guest.access(HIGH, 4, 0x01000000)  # big-endian 1: 4 GiB, where there is no memory
    assert guest.dma(SELECT | READ, 4) == SELECT | READ
    assert guest.dma(SELECT | READ, 4) == 0


@pytest.mark.parametrize(
    ("control", "length", "target"),
    [(WRITE, 4, TARGET), (WRITE | READ, 4, TARGET), (READ, 4, 0xFFFE), (READ, 0xFFFFFFFF, 0), (READ, 1, 1 << 63)],
)
def test_a_dma_access_that_fails_says_so(control: int, length: int, target: int) -> None:
    guest = Guest()
    before = guest.memory.read(0, AT) + guest.memory.read(TARGET, 0x100)
    assert guest.dma(control | SELECT, length, target) == ERROR
    assert guest.memory.read(0, AT) + guest.memory.read(TARGET, 0x100) == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is no name of a file"),
        ("a b", "is no name of a file"),
        ("\xe9", "is no name of a file"),
        ("a\n", "is no name of a file"),
        ("x" * 56, "is no name of a file"),
        ("a", "is there already"),
    ],
)
def test_names_that_are_refused(name: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Guest(a=b"").device.add(name, b"")
    Guest().device.add("x" * 55, b"")


@given(st.lists(st.tuples(st.sampled_from([SELECTOR, DATA, *range(HIGH, LOW + 4)]), st.sampled_from([1, 2, 4]),
                          st.none() | st.integers(0, 2**32 - 1))))  # fmt: skip
def test_any_accesses_are_answered(accesses: list[tuple[int, int, int | None]]) -> None:
    guest = Guest(a=b"x" * 100)
    for port, size, value in accesses:
        guest.access(port, size, None if value is None else value % (1 << 8 * size))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1) | st.integers(0, 0x11000))
def test_any_dma_access_stays_inside_memory(control: int, length: int, target: int) -> None:
    guest = Guest(a=b"x" * 100)
    guest.dma(control, length, target)
    assert guest.read(0, 4) == b"QEMU"

"""Kernels that nobody would make, in great number: each is refused by an error of ours, or entered inside memory."""

from __future__ import annotations

import gzip
import mmap
import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import kernels as k
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernels import AT, CODE, MIB, Segment
from refusals import TEXTS, or_refused

from minicontainer.cli.kvmboot import ADDRESS, number, span
from minicontainer.errors import Error, SpecError
from minicontainer.kvm import acpi, boot, processor
from minicontainer.kvm.boot import elf, unpack
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory


def examples(count: int) -> settings:
    return settings(
        max_examples=count, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )  # one directory does for all examples


IMAGES = [
    k.simple(32),
    k.simple(64),
    k.elf(64, [Segment(CODE, AT + 0x8000), Segment(CODE, AT), k.own_note(1, 2), k.note("x", 1, b"")], AT),
    k.pvh(32),
    k.pvh(64),
    k.bzimage(),
    *(k.bzimage(pack(k.pvh())) for pack in k.PACKERS.values()),
    k.boot_sector(),
    k.elf_with(k.multiboot(3)),
    k.multiboot(0, AT, AT, 0, AT + 0x1000, AT + 32),
    k.elf_with(k.multiboot2((1, 0, b"\x01\0\0\0"), (4, 1, bytes(4)), (5, 1, bytes(12))), 64),
    k.multiboot2((2, 0, struct.pack("<IIII", AT, AT, 0, 0)), (3, 0, struct.pack("<I", AT + 0x40))),
    gzip.compress(k.simple()),
    CODE,
]
EDGES = [0, 1, 2, 0x1000, 0x9FC00, AT, MIB, 32 * MIB - 1, 32 * MIB, 3 << 30, 1 << 32]
EDGES += [2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 0x1000, 2**64 - 1]
VALUES = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**64 - 1), st.integers(0, 2000))
WILD = VALUES.map(lambda value: value % 2**32)


def mostly(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = WILD, times: int = 15) -> Any:
    """The other once in a while (one_of would take each of two as often)."""
    return st.integers(0, times).flatmap(lambda n: other if n == times else usual)


ANY_OPTIONS = st.builds(
    boot.Options,
    mode=st.sampled_from([None, None, None, *boot.MODES, "unreal"]),
    load_address=st.one_of(st.none(), st.none(), VALUES),
    entry=st.one_of(st.none(), st.none(), VALUES),
    initrd=st.sampled_from([None, None, "kernel", "/nowhere", "/dev"]),
    append=st.one_of(st.none(), st.none(), st.sampled_from(["", "quiet", "x" * 300, "x" * 3000]), TEXTS),
    screen=st.booleans(),
)
OPTIONS = mostly(st.just(boot.Options()), ANY_OPTIONS, 4)  # with any two options most images are refused
MEMORIES = st.sampled_from([*[32 * MIB] * 8, 4096, 0xF0000, MIB, 2 * MIB, 16 * MIB, (3 << 30) + 4096, 5 << 30])


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def attempt(content: bytes, size: int, options: boot.Options) -> Entry | None:
    """Loads it as a Machine would, and prepares its processors: how it is entered; None where it is refused."""
    Path("kernel").write_bytes(content)
    memory = GuestMemory(size)
    try:
        with Kernel("kernel") as kernel:
            assert boot.memory_wanted(kernel) % MIB == 0
            entry = boot.load(kernel, memory, options)
        check(entry, memory)
    except Error as error:
        refusal = error
    else:
        return entry
    finally:
        memory.close()
    assert str(refusal).isprintable(), refusal
    assert refusal.exit_code == (126 if isinstance(refusal, KernelError) else 125)
    assert isinstance(refusal, (KernelError, SpecError)), refusal
    return None


def check(entry: Entry, memory: GuestMemory) -> None:
    """Entered where memory is, with all that is used inside, each beside the others and beside processors' tables."""
    memory.offset(entry.rip, 1)
    assert entry.rip < {"real": 1 << 16, "protected": 1 << 32}.get(entry.mode, 1 << 64)
    assert 1 <= entry.cpus <= 254
    if entry.linux:
        acpi.write(memory, entry.cpus)
    before = [memory.read(at, min(size, MIB)) for at, size in entry.used]
    processor.write_tables(entry, memory)
    assert before == [memory.read(at, min(size, MIB)) for at, size in entry.used]
    ordered = sorted((at, at + size) for at, size in entry.used if size)
    assert all(end <= at for (_, end), (at, _) in pairwise(ordered)), ordered
    assert ordered[-1][1] <= memory.end


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid image with some fields set, biased to its headers, and perhaps another length."""
    image = bytearray(draw(st.sampled_from(IMAGES)))
    start = 0x1F1 if image[0x202:0x206] == b"HdrS" else 0
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.sampled_from([1, 2, 4, 8]))
        last = len(image) - size if draw(st.booleans()) else min(start + 0x100, len(image) - size)
        at = draw(st.integers(min(start, last), last))
        image[at : at + size] = (draw(VALUES) % (1 << 8 * size)).to_bytes(size, "little")
    if draw(st.integers(0, 4)) == 0:
        return bytes(image[: draw(st.integers(0, len(image)))])
    return bytes(image)


@examples(1200)
@given(mutated(), MEMORIES, OPTIONS)
def test_a_mutated_image_is_refused_or_entered_inside_memory(content: bytes, size: int, options: boot.Options) -> None:
    attempt(content, size, options)


def test_every_image_is_entered_as_it_is() -> None:
    """So that the fuzzing begins with what is right."""
    found = [attempt(image, 32 * MIB, boot.Options()) for image in IMAGES]
    assert [entry.kind for entry in found if entry] == [
        "elf32", "elf64", "elf64", "pvh", "pvh", "bzimage", *["pvh"] * 6, "boot-sector", "multiboot", "multiboot",
        "multiboot2", "multiboot2", "elf64", "flat",
    ]  # fmt: skip


PLACES = st.integers(0, 8191).map(lambda page: page << 12)


SEGMENTS = st.builds(
    Segment,
    content=st.binary(max_size=40),
    paddr=mostly(PLACES),
    memsz=mostly(st.one_of(st.none(), st.integers(40, 0x8000))),
    vaddr=mostly(st.one_of(st.none(), st.just(0xFFFF0000))),
    type=mostly(st.sampled_from([1, 1, 1, 1, 4, 0x6474E551])),
    offset=mostly(st.none()),
)
NOTES = st.builds(
    k.note,
    st.sampled_from(["Xen", "minicontainer", "GNU", ""]),
    st.sampled_from([1, 18, 2**32 - 1]),
    st.one_of(mostly(PLACES).map(lambda v: struct.pack("<I", v)), VALUES.map(lambda v: struct.pack("<Q", v))),
)


@examples(600)
@given(st.sampled_from([32, 64]), st.lists(st.one_of(SEGMENTS, NOTES), max_size=6), mostly(PLACES), MEMORIES, OPTIONS)
def test_any_elf_file(bits: int, segments: list[Segment], entry: int, size: int, options: boot.Options) -> None:
    attempt(k.elf(bits, segments, entry), size, options)


@examples(200)
@given(st.sampled_from([b"", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01"]), st.binary(max_size=600), MEMORIES, OPTIONS)
def test_any_bytes(head: bytes, content: bytes, size: int, options: boot.Options) -> None:
    attempt(head + content, size, options)


# ---- parts


@examples(150)
@given(st.binary(max_size=200))
@example(struct.pack("<III", 2**32 - 1, 2**32 - 1, 1) + bytes(100))
@example(bytes(1200))
def test_notes_come_from_within_their_bytes(raw: bytes) -> None:
    found = list(elf.notes(raw))
    assert sum(12 + len(owner) + len(content) for owner, _, content in found) <= len(raw)


@examples(150)
@given(st.lists(st.tuples(st.text(st.characters(codec="ascii", exclude_characters="\0")), st.integers(0, 2**32 - 1),
                          st.binary(max_size=30)), max_size=5))  # fmt: skip
def test_notes_are_read_as_they_were_written(written: list[tuple[str, int, bytes]]) -> None:
    assert list(elf.notes(b"".join(k.note(*one).content for one in written))) == written


UNPACKERS = list(unpack.FORMATS.items())


@examples(400)
@given(st.data())
def test_no_payload_breaks_what_unpacks_it(data: st.DataObject) -> None:
    """What it gives is of exactly the size that was asked for."""
    magic, unpack = data.draw(st.sampled_from(UNPACKERS))
    good = next(p for p in (pack(k.pvh()) for pack in k.PACKERS.values()) if p.startswith(magic))
    raw = bytearray(good if data.draw(st.booleans()) else magic + data.draw(st.binary(max_size=100)))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.one_of(st.just(len(k.pvh())), st.integers(0, 10000), st.just(32 * MIB)))
    content = unpack(bytes(raw), size)
    assert content is None or len(content) == size or size == 0
    if isinstance(content, mmap.mmap):
        content.close()


def blocks(raw: list[bytes]) -> bytes:
    return unpack.LZ4_LEGACY + b"".join(struct.pack("<I", len(b)) + b for b in raw) + bytes(4)


@examples(150)
@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(0, 300))
def test_any_lz4_frame(raw: list[bytes], size: int) -> None:
    content = unpack.lz4(blocks(raw), size)
    if content is not None:
        assert len(content) == (size or 1)
        content.close()


@examples(150)
@given(st.lists(st.binary(min_size=15, max_size=600), min_size=1, max_size=4))
def test_an_lz4_frame_is_unpacked_as_it_was_packed(parts: list[bytes]) -> None:
    content = unpack.lz4(blocks([k.lz4_literals(p) for p in parts]), sum(map(len, parts)))
    assert content is not None
    assert content[:] == b"".join(parts)
    content.close()


# ---- words of the command line


WORDS = st.one_of(
    TEXTS,
    st.integers().map(str),
    st.integers().map(hex),
    st.sampled_from(["", "0x", "1_0", " 1", "0b1", "9" * 5000, "1e9", "٣", "-0", "+1", "0x10000000000000"]),
)


@examples(150)
@given(WORDS)
def test_any_address(text: str) -> None:
    with or_refused():
        value = number("entry", text, ADDRESS)
        assert value is not None
        assert 0 <= value < 1 << 52


@examples(150)
@given(st.one_of(WORDS, st.tuples(WORDS, WORDS).map(":".join)))
def test_any_span(text: str) -> None:
    with or_refused():
        address, length = span(text)
        assert 0 <= address < 1 << 52
        assert 0 <= length < 1 << 52

"""Loaders, without KVM: valid images go where they belong; mutated ones are refused, or loaded inside memory."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.errors import Error, SpecError
from minicontainer.kvm import acpi, boot
from minicontainer.kvm.boot import elf, pc
from minicontainer.kvm.boot.kernel import Entry, Kernel, KernelError
from minicontainer.kvm.memory import GuestMemory, GuestMemoryError

CODE = b"\x90\x90\xf4 code"
PADDR, BSS = 0x200000, 0x1000


def elf64(note: tuple[str, int, bytes] | None = None, *, machine: int = 62, kind: int = 2) -> bytes:
    """One segment of CODE, and a note behind it."""
    raw = b""
    if note:
        owner = note[0].encode() + b"\0"
        raw = struct.pack("<III", len(owner), len(note[2]), note[1]) + owner + bytes(-len(owner) % 4) + note[2]
    headers = [(1, 7, 0x1000, PADDR, PADDR, len(CODE), len(CODE) + BSS, 0x1000)]
    if raw:
        headers.append((4, 4, 0x1000 + len(CODE), 0, 0, len(raw), len(raw), 4))
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, PADDR + 1, 64, 0, 0, 64, 56, len(headers), 0, 0, 0)
    head += b"".join(struct.pack("<IIQQQQQQ", *h) for h in headers)
    return head.ljust(0x1000, b"\0") + CODE + raw


PVH = ("Xen", 18, struct.pack("<I", PADDR + 2))


def bzimage(payload: bytes = b"", *, version: int = 0x20F) -> bytes:
    """One set-up sector; 2 KiB that are loaded, of which ``payload`` is the end."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x200:0x206] = b"\xeb\x66HdrS"
    struct.pack_into("<H", head, 0x206, version)
    head[0x211] = 1
    struct.pack_into("<I", head, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<H", head, 0x236, 1)
    struct.pack_into("<I", head, 0x238, 255)
    struct.pack_into("<II", head, 0x248, 2048, len(payload))
    struct.pack_into("<Q", head, 0x258, 0x1000000)
    struct.pack_into("<I", head, 0x260, 0x100000)
    return bytes(head) + b"\xcc" * 2048 + payload


def packed(content: bytes) -> bytes:
    """As Linux's build packs it with gzip, whose own end is the size."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(content) + packer.flush()


def load(directory: Path, content: bytes, memory: GuestMemory, **options: object) -> Entry:
    path = directory / "kernel"
    path.write_bytes(content)
    with Kernel(str(path)) as kernel:
        return boot.load(kernel, memory, boot.Options(**options))  # type: ignore[arg-type]


def test_an_elf_file_goes_to_its_physical_addresses(tmp_path: Path) -> None:
    memory = GuestMemory("4M")
    entry = load(tmp_path, elf64(), memory)
    assert memory[PADDR : PADDR + len(CODE)] == CODE
    assert (entry.mode, entry.rip, entry.used) == ("long", PADDR + 1, [(PADDR, len(CODE) + BSS)])
    wanted = load(tmp_path, elf64((elf.NOTE, elf.NOTE_TYPE, struct.pack("<II", 3, 2))), memory)
    assert (wanted.mode, wanted.irqchip, wanted.cpus) == ("user64", True, 2)
    memory.close()


def test_pvh_gets_its_start_info(tmp_path: Path) -> None:
    memory = GuestMemory("5G")  # nothing of it is touched but what is loaded
    (tmp_path / "initrd").write_bytes(b"initrd!")
    entry = load(tmp_path, elf64(PVH), memory, initrd=str(tmp_path / "initrd"), append="a=1")
    assert (entry.mode, entry.rip, entry.irqchip, entry.linux) == ("protected", PADDR + 2, True, True)
    fields = struct.unpack("<IIIIQQQQII", memory.read(entry.registers["rbx"], 56))
    magic, version, _, modules, modlist, line, rsdp, table, count, _ = fields
    assert (magic, version, modules, rsdp) == (0x336EC578, 1, 1, acpi.ADDRESS)
    assert memory.read(line, 4) == b"a=1\0"
    address, size = struct.unpack("<QQ", memory.read(modlist, 16))
    assert memory.read(address, size) == b"initrd!"
    ranges = [struct.unpack("<QQII", memory.read(table + 24 * i, 24))[:3] for i in range(count)]
    assert ranges[-2:] == [(1 << 20, (3 << 30) - (1 << 20), 1), (4 << 30, 2 << 30, 1)]
    assert sum(size for _, size, kind in ranges if kind == 1) == (5 << 30) - (1 << 20) + pc.LOW_END
    memory.close()


def test_a_bzimage_gets_its_zero_page_or_is_unpacked(tmp_path: Path) -> None:
    memory = GuestMemory("32M")
    entry = load(tmp_path, bzimage(packed(elf64(PVH))), memory)
    assert (entry.kind, entry.rip) == ("pvh", PADDR + 2)
    assert memory[PADDR : PADDR + len(CODE)] == CODE
    entry = load(tmp_path, bzimage(), memory, mode="linux", append="x")
    page = memory.read(entry.registers["rsi"], 4096)
    assert (entry.mode, entry.rip) == ("long", 0x100200)
    assert memory.read(0x100000, 4) == b"\xcc" * 4
    assert page[0x202:0x206] == b"HdrS"
    assert page[0x210] == 0xFF
    assert page[0x1E8] == 3
    assert memory.read(int.from_bytes(page[0x228:0x22C], "little"), 2) == b"x\0"
    assert int.from_bytes(page[0x70:0x78], "little") == acpi.ADDRESS
    with pytest.raises(SpecError, match="append"):
        load(tmp_path, bzimage(), memory, append="x" * 256)
    with pytest.raises(SpecError, match="--mode linux"):
        load(tmp_path, bzimage(), memory, mode="pvh")
    memory.close()


def field(content: bytes, offset: int, form: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


SEGMENT = 64  # the first program header: p_offset at 8, p_paddr at 24, p_filesz at 32, p_memsz at 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (elf64()[:40], "cut off"),
        (elf64()[:100], "beyond its 100 bytes"),
        (elf64()[:0x1001], "beyond its 4097 bytes"),
        (elf64(machine=183), "aarch64"),
        (elf64(kind=3), "-no-pie"),
        (field(elf64(), SEGMENT + 40, "<Q", 1), "for 1 in memory"),
        (field(elf64(), SEGMENT + 40, "<Q", 2**63), "does not fit"),
        (field(elf64(), SEGMENT + 24, "<Q", 2**64 - 8), "0xfffffffffffffff8"),
        (field(elf64(), 24, "<Q", 2**40), "its entry 0x10000000000 is outside memory"),
        (field(elf64(), 56, "<H", 65535), "program header table"),
        (bzimage()[:0x210], "cut off"),
        (bzimage(version=0x202), "2.02"),
        (bytes(5 << 20), "do not fit"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    memory = GuestMemory("4M")
    with pytest.raises(KernelError, match=words.replace("(", r"\(")) as caught:
        load(tmp_path, content, memory)
    assert caught.value.exit_code == 126
    assert "\n" not in str(caught.value)
    memory.close()


def test_a_missing_file_and_a_sparse_one(tmp_path: Path) -> None:
    with pytest.raises(KernelError) as caught:
        Kernel(str(tmp_path / "none"))
    assert caught.value.exit_code == 127
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    memory = GuestMemory("4M")
    with Kernel(str(tmp_path / "sparse")) as kernel, pytest.raises(KernelError, match="do not fit"):
        boot.load(kernel, memory)
    memory.close()


IMAGES = [elf64(), elf64(PVH), bzimage(), bzimage(packed(elf64(PVH))), bytes(range(256)) * 2]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_image_is_more_than_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, fields set to extremes, ends cut off: an Entry inside memory, or one of our errors."""
    image = bytearray(data.draw(st.sampled_from(IMAGES)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, min(len(image), 0x400) - 9))
        value = data.draw(
            st.one_of(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
        )
        size = data.draw(st.sampled_from([1, 2, 4, 8]))
        image[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    content = bytes(image[: data.draw(st.integers(0, len(image)))] if data.draw(st.booleans()) else image)
    memory = GuestMemory("32M")
    try:
        entry = load(tmp_path_factory.getbasetemp(), content, memory)
        for address, size in [(entry.rip, 1), *entry.used]:
            memory.offset(address, size)
    except GuestMemoryError:
        raise
    except Error:
        pass  # refused
    finally:
        memory.close()


def test_acpi_tables_sum_to_zero_and_lead_to_each_other() -> None:
    memory = GuestMemory("2M")
    rsdp = memory.read(acpi.write(memory, 3), 36)
    assert (sum(rsdp[:20]) & 0xFF, sum(rsdp) & 0xFF, rsdp[:8]) == (0, 0, b"RSD PTR ")

    def table(address: int) -> bytes:
        raw = memory.read(address, int.from_bytes(memory.read(address + 4, 4), "little"))
        assert sum(raw) & 0xFF == 0
        return raw

    xsdt = table(int.from_bytes(rsdp[24:32], "little"))
    tables = {t[:4]: t for t in (table(a) for (a,) in struct.iter_unpack("<Q", xsdt[36:]))}
    assert set(tables) == {b"FACP", b"APIC"}
    assert len(tables[b"FACP"]) == 276
    assert table(int.from_bytes(tables[b"FACP"][140:148], "little"))[:4] == b"DSDT"
    assert tables[b"APIC"][44:].count(b"\x00\x08") >= 3
    memory.close()

"""A machine as data: what loaders write is recorded, with the files it comes from, and encoded for csrc/vmm."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernels as k
import pytest

from minicontainer.errors import Error
from minicontainer.kvm import acpi, mptable
from minicontainer.kvm.boot.kernel import InMemory, Kernel
from minicontainer.kvm.memory import HIGH, HOLE, GuestMemoryError
from minicontainer.microvm import image
from minicontainer.microvm.devices import ALWAYS
from minicontainer.microvm.recorded import Copied, RecordedMemory, Written


@pytest.fixture
def memory() -> Iterator[RecordedMemory]:
    made = RecordedMemory("32m")
    yield made
    made.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    (tmp_path / "kernel").write_bytes(bytes(range(256)) * 400)
    with Kernel(str(tmp_path / "kernel")) as opened:
        yield opened


def test_writes_are_recorded_in_their_order(memory: RecordedMemory) -> None:
    memory.write(0x1000, b"one")
    memory.write(0x1000, b"two")
    memory.write(0x2000, b"")
    assert memory.writes == [Written(0x1000, b"one"), Written(0x1000, b"two")]


def test_what_lies_in_a_file_is_not_copied(memory: RecordedMemory, kernel: Kernel) -> None:
    memory.read_from(kernel, 0x100000, 1000, 7, "its segment")
    memory.read_from(kernel, 0x200000, 10, 0, "another")
    assert memory.writes == [Copied(0x100000, 1000, 7, 0), Copied(0x200000, 10, 0, 0)]
    (fd,) = memory.files
    assert fd != kernel.fd, "the loader closes its own"
    assert os.path.sameopenfile(fd, kernel.fd)


def test_what_lies_in_memory_is(memory: RecordedMemory) -> None:
    memory.read_from(InMemory("x", b"0123456789"), 0x1000, 4, 3, "its segment")
    assert memory.writes == [Written(0x1000, b"3456")]
    assert not memory.files


@pytest.mark.parametrize(("address", "size"), [(32 << 20, 1), ((32 << 20) - 1, 2), (-1, 1), (HIGH, 1)])
def test_there_is_no_more_memory_than_was_asked_for(memory: RecordedMemory, address: int, size: int) -> None:
    with pytest.raises(GuestMemoryError, match="not all memory"):
        memory.write(address, bytes(size))


def test_memory_beyond_the_hole_is_above_4_gib() -> None:
    memory = RecordedMemory((4 << 30) - (1 << 20))
    memory.write(HIGH, b"x")
    with pytest.raises(GuestMemoryError):
        memory.write(HOLE, b"x")


@pytest.mark.parametrize("read", [lambda m: m.read(0, 1), lambda m: m.view(0, 1), lambda m: m[0]])
def test_it_cannot_be_read(memory: RecordedMemory, read: Any) -> None:
    with pytest.raises(Error, match="recorded"):
        read(memory)


# ---- by what a kernel learns of processors and devices


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is written at each address for a kernel that is not packed, with or without ACPI."""
    (tmp_path / "vmlinux").write_bytes(k.simple())
    (tmp_path / "initramfs").write_bytes(b"x")

    def written(_: object, memory: RecordedMemory, *others: object) -> bytes:
        writes = [w for w in memory.writes if isinstance(w, Written)]
        return b"".join(struct.pack("<QI", w.address, len(w.data)) + w.data for w in writes)

    monkeypatch.setattr(image, "_encode", written)

    def of(has_acpi: bool) -> dict[int, bytes]:
        what = image.Boot(str(tmp_path / "vmlinux"), str(tmp_path / "initramfs"), "quiet", "linux64", has_acpi)
        made = image.make(None, what, 64 << 20, 2)  # type: ignore[arg-type]  # no KVM
        for fd in made.files:
            os.close(fd)
        found, at = {}, 0
        while at < len(made.data):
            address, size = struct.unpack_from("<QI", made.data, at)
            found[address] = made.data[at + 12 : at + 12 + size]
            at += 12 + size
        return found

    return of


def test_a_kernel_with_acpi_has_its_tables(tables: Any) -> None:
    found = tables(True)
    assert found[acpi.ADDRESS].startswith(b"RSD PTR ")
    assert mptable.POINTER not in found


def test_a_kernel_without_has_an_mp_table_with_the_devices_interrupts(tables: Any) -> None:
    found = tables(False)
    assert acpi.ADDRESS not in found
    assert found[mptable.POINTER].startswith(b"_MP_")
    table = found[mptable.ADDRESS]
    for _, irq in image.device_places(ALWAYS):
        # flags 0: as the bus has them; ISA's are active high and edge (MultiProcessor Specification, 4.3.4)
        entry = struct.pack("<BBHBBBB", mptable.INTERRUPT, mptable.INT, 0, 0, irq, 2, irq)
        assert entry in table

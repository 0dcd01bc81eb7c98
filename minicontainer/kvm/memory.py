"""Guest memory: one private anonymous mapping of this process.

Below 4 GiB a PC has an address range for devices: memory beyond HOLE continues at 4 GiB.
"""

from __future__ import annotations

import mmap
import os
from functools import cache
from typing import NamedTuple

from minicontainer.errors import Error, SpecError
from minicontainer.kvm.vm import Vm
from minicontainer.native import ffi
from minicontainer.spec import size as parse_size

PAGE = 4096
HOLE = 3 << 30  # up to 4 GiB: IOAPIC, local APIC, reset vector, virtio
HIGH = 4 << 30
FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


class GuestMemoryError(Error, IndexError):
    """An address at which the guest has no memory."""


class Region(NamedTuple):
    """A contiguous range of guest memory, at ``offset`` in the mapping."""

    address: int
    size: int
    offset: int


class GuestMemory:
    """``size`` bytes for a guest: ``memory[0x1000:0x1004]`` reads, ``memory[0x1000:0x1004] = b"..."`` writes.

    Addresses are guest physical addresses. GuestMemoryError: part of a range is not memory. The kernel allocates a page
    at its first access by guest or host."""

    def __init__(self, size: int | str) -> None:
        self.size = _parse_size(size)
        low = min(self.size, HOLE)
        self.regions = [Region(0, low, 0)]
        if self.size > low:
            self.regions.append(Region(HIGH, self.size - low, low))
        self._map = _map_anonymous(self.size)
        self._view = ffi.from_buffer(self._map)
        self.host = int(ffi.cast("uintptr_t", self._view))

    def attach(self, vm: Vm) -> None:
        """Gives this memory to ``vm``, one slot for each region."""
        for slot, region in enumerate(self.regions):
            vm.set_user_memory_region(slot, region.address, region.size, self.host + region.offset)

    def close(self) -> None:
        """Unmaps the memory. No machine may use it any more."""
        ffi.release(self._view)
        self._map.close()

    @property
    def end(self) -> int:
        """The first address above all memory."""
        last = self.regions[-1]
        return last.address + last.size

    def offset(self, address: int, length: int) -> int:
        """The offset in the mapping of ``length`` bytes at ``address``."""
        for region in self.regions:
            if region.address <= address and address + length <= region.address + region.size and length >= 0:
                return address - region.address + region.offset
        raise GuestMemoryError(
            f"guest memory {address:#x}: {length} bytes there are not all memory ({self.describe()})"
        )

    def describe(self) -> str:
        """Its regions as text."""
        return ", ".join(f"{r.address:#x} to {r.address + r.size:#x}" for r in self.regions)

    def view(self, address: int, length: int) -> memoryview:
        """A writable view of guest memory; the caller releases it before close()."""
        at = self.offset(address, length)
        return memoryview(self._map)[at : at + length]

    def read(self, address: int, length: int) -> bytes:
        """A copy of ``length`` bytes at ``address``."""
        at = self.offset(address, length)
        return self._map[at : at + length]

    def write(self, address: int, data: bytes) -> None:
        """Writes ``data`` at ``address``."""
        at = self.offset(address, len(data))
        self._map[at : at + len(data)] = data

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: int | slice) -> bytes:
        return self.read(*_span(where))

    def __setitem__(self, where: int | slice, data: bytes | int) -> None:
        address, length = _span(where)
        raw = bytes([data]) if isinstance(data, int) else bytes(data)
        if len(raw) != length:
            raise ValueError(f"{len(raw)} bytes for {length} at {address:#x}")
        self.write(address, raw)


def _span(where: int | slice) -> tuple[int, int]:
    """Address and length of ``memory[a]`` and ``memory[a:b]``."""
    if isinstance(where, int):
        return where, 1
    if where.start is None or where.stop is None or where.step not in (None, 1):
        raise ValueError("guest memory is taken as memory[start:stop]")
    return where.start, where.stop - where.start


def _parse_size(size: int | str) -> int:
    """The size in bytes. SpecError: it is malformed, not in whole pages, or more than the host has."""
    number = parse_size("memory", size, least=PAGE)
    if number % PAGE:
        raise SpecError("memory", size, f"is no multiple of {PAGE} bytes")
    if number > host_memory():
        raise SpecError("memory", size, f"is more than this host has ({host_memory() >> 20} MiB)")
    return number


def _map_anonymous(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size, FLAGS)
    except OSError as error:  # RLIMIT_AS; vm.max_map_count
        raise SpecError("memory", size, f"cannot be mapped: {error.strerror}", "ulimit -v") from None


@cache
def host_memory() -> int:
    """Bytes of memory that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

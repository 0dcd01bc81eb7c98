"""Guest memory: one private anonymous mapping of this process.

Below 4 GiB a PC has an address range for devices: memory beyond HOLE continues at 4 GiB.
"""

from __future__ import annotations

import mmap
import os

from minicontainer.errors import Error, SpecError
from minicontainer.kvm.descriptor import PAGE
from minicontainer.native import ffi
from minicontainer.spec import size as parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import suppress
    from functools import lru_cache
    from typing import NamedTuple, Protocol

    from minicontainer.kvm.vm import Vm

    class Source(Protocol):
        """A file that is read in parts: boot.kernel.Kernel."""

        def read_into(self, view: memoryview, offset: int, what: str) -> None:
            """Reads from ``offset`` on into ``view``."""
else:
    from minicontainer.light import lru_cache, suppress
    from minicontainer.records import NamedTuple

HOLE = 3 << 30  # up to 4 GiB: IOAPIC, local APIC, reset vector, virtio
HIGH = 4 << 30
# From LARGE on, memory is advised for huge pages, and host and guest addresses are equal modulo a huge page: so the
# kernel maps whole ones in the nested page tables, and Linux boots in two thirds of the time.
HUGE_PAGE, LARGE = 2 << 20, 32 << 20
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
        self.size = parse_memory(size)
        is_large = self.size >= LARGE
        self._map = _map_anonymous(self.size + HUGE_PAGE * is_large)
        self._view = ffi.from_buffer(self._map)
        self.host = int(ffi.cast("uintptr_t", self._view))
        begin = -self.host % HUGE_PAGE if is_large else 0
        if is_large:
            _advise_huge_pages(self._map, begin, self.size)
        self.regions = regions(self.size, begin)

    def _check_open(self) -> None:
        if self._map.closed:
            raise ValueError("guest memory: it is closed")

    def attach(self, vm: Vm) -> None:
        """Gives this memory to ``vm``, one slot for each region. ValueError: it is closed."""
        self._check_open()
        vm.kept.append(self)
        for slot, region in enumerate(self.regions):
            vm.set_user_memory_region(slot, region.address, region.size, self.host + region.offset)

    def close(self) -> None:
        """Unmaps the memory. No machine may use it any more. Error: a ``view`` of it is in use."""
        ffi.release(self._view)
        try:
            self._map.close()
        except BufferError:
            raise Error("guest memory: it cannot be unmapped, a view is in use (memoryview.release)") from None

    @property
    def end(self) -> int:
        """The first address above all memory."""
        last = self.regions[-1]
        return last.address + last.size

    def offset(self, address: int, length: int) -> int:
        """The offset in the mapping of ``length`` bytes at ``address``. ValueError: the memory is closed."""
        if not isinstance(address, int) or not isinstance(length, int):
            wrong = length if isinstance(address, int) else address
            raise TypeError(f"guest memory {wrong!r}: must be a whole number, not {type(wrong).__name__}")
        self._check_open()
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

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Writes ``data`` at ``address``."""
        raw = _raw(data)
        at = self.offset(address, len(raw))
        self._map[at : at + len(raw)] = raw

    def read_from(self, file: Source, address: int, length: int, offset: int, what: str) -> None:
        """Reads ``length`` bytes at ``offset`` of a kernel's file to ``address``; ``what`` names them in the error."""
        with self.view(address, length) as view:
            file.read_into(view, offset, what)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: int | slice) -> bytes:
        return self.read(*_span(where))

    def __setitem__(self, where: int | slice, data: bytes | bytearray | memoryview | int) -> None:
        address, length = _span(where)
        raw = _byte(address, data) if isinstance(data, int) else _raw(data)
        if len(raw) != length:
            raise ValueError(f"{len(raw)} bytes for {length} at {address:#x}")
        self.write(address, raw)


def regions(size: int, begin: int = 0) -> list[Region]:
    """Where ``size`` bytes of memory lie; in the mapping from ``begin`` on."""
    low = min(size, HOLE)
    lowest = Region(0, low, begin)
    return [lowest] if size == low else [lowest, Region(HIGH, size - low, begin + low)]


def _span(where: int | slice) -> tuple[int, int]:
    """Address and length of ``memory[a]`` and ``memory[a:b]``."""
    if isinstance(where, int):
        return where, 1
    if not isinstance(where, slice):
        raise TypeError(f"guest memory is taken as memory[address] or [start:stop], not by {type(where).__name__}")
    start, stop = where.start, where.stop
    if not isinstance(start, int) or not isinstance(stop, int) or where.step not in (None, 1):
        raise ValueError("guest memory is taken as memory[start:stop], of whole numbers")
    return start, stop - start


def _raw(data: object) -> bytes | bytearray | memoryview:
    """The bytes of ``data``. TypeError: it has none."""
    if isinstance(data, (bytes, bytearray)):
        return data
    if isinstance(data, memoryview) and data.c_contiguous:
        return data.cast("B")
    if not isinstance(data, (str, int)):
        with suppress(TypeError):
            return bytes(data)  # type: ignore[call-overload, no-any-return]
    raise TypeError(f"guest memory takes bytes, not {type(data).__name__}")


def _byte(address: int, value: int) -> bytes:
    if not 0 <= value <= 0xFF:
        raise SpecError(f"guest memory {address:#x}", value, "must be a byte, from 0 to 255")
    return bytes([value])


def parse_memory(size: int | str) -> int:
    """The size in bytes. SpecError: it is malformed, not in whole pages, or more than the host has."""
    number = parse_size("memory", size, least=PAGE)
    if number % PAGE:
        raise SpecError("memory", size, f"is no multiple of {PAGE} bytes")
    if number > host_memory():
        has = host_memory() >> 20
        raise SpecError("memory", size, f"is more than this host has ({has} MiB)", f"such as {has // 2}m")
    return number


def _advise_huge_pages(memory: mmap.mmap, begin: int, size: int) -> None:
    try:
        memory.madvise(mmap.MADV_HUGEPAGE, begin, size // HUGE_PAGE * HUGE_PAGE)
    except OSError:
        pass  # a kernel without them (CONFIG_TRANSPARENT_HUGEPAGE)


def _map_anonymous(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size, FLAGS)
    except OSError as error:  # RLIMIT_AS; vm.max_map_count
        raise SpecError("memory", size, f"cannot be mapped: {error.strerror}", "ulimit -v") from None


@lru_cache(maxsize=None)
def host_memory() -> int:
    """Bytes of memory that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

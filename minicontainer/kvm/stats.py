"""KVM's own statistics of a machine or a processor (Linux Documentation/virt/kvm/api.rst, "KVM_GET_STATS_FD")."""

from __future__ import annotations

import os
import struct

from minicontainer.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

HEADER = struct.Struct("=6I")  # flags, name_size, num_desc, id_offset, desc_offset, data_offset
DESCRIPTOR = struct.Struct("=IhHII")  # flags, exponent, size, offset, bucket_size; then the name
TYPES = {0: "cumulative", 1: "instant", 2: "peak", 3: "linear-histogram", 4: "log-histogram"}
UNITS = {0: "", 1: "bytes", 2: "seconds", 3: "cycles", 4: "boolean"}
BASES = {0: 10, 1: 2}


class Stat(NamedTuple):
    """One statistic. ``values``: one number, or the buckets of a histogram, in units of ``scale`` ``unit``: 1e-9 and
    ``seconds`` are nanoseconds. ``bucket_size``: the width of a linear histogram's buckets."""

    values: tuple[int, ...]
    type: str
    unit: str
    scale: float
    bucket_size: int

    @property
    def value(self) -> int:
        """The number; of a histogram, the sum of its buckets."""
        return sum(self.values)


def read(fd: int) -> dict[str, Stat]:
    """All statistics of the descriptor that KVM_GET_STATS_FD returned, by name. A type or unit that this version does
    not know is its number as text."""
    _, name_size, count, _, at, data = HEADER.unpack(_pread(fd, HEADER.size, 0))
    step = DESCRIPTOR.size + name_size
    table = _pread(fd, count * step, at)
    found = {}
    for begin in range(0, len(table), step):
        flags, exponent, size, offset, bucket_size = DESCRIPTOR.unpack_from(table, begin)
        name = table[begin + DESCRIPTOR.size : begin + step].partition(b"\0")[0].decode()
        kind, unit, base = flags & 15, flags >> 4 & 15, flags >> 8 & 15
        values = struct.unpack(f"={size}Q", _pread(fd, 8 * size, data + offset))
        scale = float(BASES.get(base, 10)) ** exponent
        found[name] = Stat(values, TYPES.get(kind, str(kind)), UNITS.get(unit, str(unit)), scale, bucket_size)
    return found


def _pread(fd: int, length: int, offset: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise Error(f"KVM's statistics: {len(data)} bytes at {offset} for {length}")
    return data

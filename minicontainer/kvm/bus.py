"""The bus of a machine: handlers for I/O ports and for guest physical addresses without memory."""

from __future__ import annotations

from _collections_abc import Callable  # collections.abc imports collections
from bisect import bisect_right

from minicontainer.errors import SpecError
from minicontainer.kvm.ports import COM1, COM1_PORTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

PORTS, ADDRESSES = 0x10000, 1 << 64
SERIAL = range(COM1, COM1 + COM1_PORTS)


class Access(NamedTuple):
    """One access of a guest: ``size`` bytes at a port or a guest physical address. ``value``: the value that the guest
    writes; 0 for a read."""

    address: int
    size: int
    write: bool
    value: int
    vcpu: int


# A handler returns the value that the guest reads; None: all ones, as without a device.
Handler = Callable[[Access], int | None]


def check_addresses(first: int, size: int) -> None:
    """SpecError: ``size`` bytes from ``first`` on are no guest physical addresses."""
    if not isinstance(first, int) or not isinstance(size, int):
        raise SpecError("address", first, f"{size} bytes from there on are no range of whole numbers")
    if size < 1 or not 0 <= first <= ADDRESSES - size:
        raise SpecError("address", hex(first), f"{size} bytes from there on are no range within 0 to 2**64 - 1")


def _check_handler(handler: Handler) -> None:
    if not callable(handler):
        raise SpecError("handler", handler, "must be a function of one Access")


class Bus:
    """The handlers of ports (``ports``) and of address ranges."""

    def __init__(self, ports: Mapping[int, Handler] | None = None) -> None:
        self.ports = {**(ports or {})}
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, Handler]] = []

    def add_ports(self, first: int, count: int, handler: Handler) -> None:
        """Adds a handler for ``count`` ports from ``first`` on; it replaces an earlier handler of the same port.
        SpecError: there are no such ports, or all of them are the serial port's."""
        _check_handler(handler)
        if not isinstance(first, int) or not isinstance(count, int):
            raise SpecError("port", first, f"{count} of them from there on are no whole numbers")
        if count < 1 or not 0 <= first <= PORTS - count:
            raise SpecError("port", first, f"{count} of them from there on are not all within 0 to {PORTS - 1}")
        if SERIAL.start <= first and first + count <= SERIAL.stop:
            raise SpecError("port", hex(first), "would never be asked: 0x3f8 to 0x3ff are the serial port")
        self.ports.update(dict.fromkeys(range(first, first + count), handler))

    def add_addresses(self, first: int, size: int, handler: Handler) -> None:
        """Adds a handler for ``size`` bytes of guest physical addresses. Ranges must not overlap."""
        _check_handler(handler)
        check_addresses(first, size)
        at = bisect_right(self._starts, first)
        before, after = self._ranges[at - 1 : at] if at else [], self._ranges[at : at + 1]
        for start, end, _ in (*before, *after):
            if first < end and start < first + size:
                raise SpecError("address", hex(first), f"overlaps the device at {start:#x} to {end:#x}")
        self._starts.insert(at, first)
        self._ranges.insert(at, (first, first + size, handler))

    def at_address(self, address: int) -> Handler | None:
        """The handler of a guest physical address; None: there is none."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        _, end, handler = self._ranges[at]
        return handler if address < end else None

"""A PC's clock and its RAM (Motorola MC146818): index at port 0x70, data at 0x71. It tells the host's time in UTC.

It has no alarm and no interrupt. A kernel that finds no clock there waits for one: Linux for half a minute.
"""

from __future__ import annotations

import time

from minicontainer.kvm.ports import RTC_DATA, RTC_INDEX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.bus import Access, Handler

SIZE = 128  # registers; bit 7 of the index masks non-maskable interrupts
STATUS_A, STATUS_B, STATUS_C, STATUS_D, CENTURY = 0x0A, 0x0B, 0x0C, 0x0D, 0x32
STATUS = {  # registers that are read as they are
    STATUS_A: 0x26,  # 32768 Hz, 1024 interrupts a second if they were on; bit 7: no update is in progress
    STATUS_B: 0x02,  # 24 hours, in BCD
    STATUS_C: 0x00,
    STATUS_D: 0x80,  # the battery is good
}


class Rtc:
    """The clock of one machine."""

    __slots__ = ("_index", "ports", "ram")

    def __init__(self) -> None:
        self._index, self.ram = 0, bytearray(SIZE)
        self.ports: dict[int, Handler] = {RTC_INDEX: self.index, RTC_DATA: self.data}  # for the bus

    def index(self, access: Access) -> int:
        """Selects a register."""
        if access.write:
            self._index = access.value % SIZE
        return self._index

    def data(self, access: Access) -> int:
        """Reads or writes it. The time cannot be set."""
        if access.write:
            self.ram[self._index] = access.value & 0xFF
            return 0
        if self._index in STATUS:
            return STATUS[self._index]
        shown = _clock().get(self._index)
        return self.ram[self._index] if shown is None else shown // 10 << 4 | shown % 10


def _clock() -> dict[int, int]:
    """Register -> its decimal value now."""
    now = time.gmtime()
    weekday = (now.tm_wday + 1) % 7 + 1  # Sunday is 1
    values = now.tm_sec, None, now.tm_min, None, now.tm_hour, None, weekday, now.tm_mday, now.tm_mon, now.tm_year % 100
    known = {register: value for register, value in enumerate(values) if value is not None}
    return {**known, CENTURY: now.tm_year // 100}

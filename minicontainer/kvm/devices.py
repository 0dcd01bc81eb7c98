"""The few devices of a PC that end a machine: keyboard controller, reset port, ACPI's sleep register.

Each is a handler for the bus that calls ``end(reason)``.
"""

from __future__ import annotations

from collections.abc import Callable

from minicontainer.kvm.bus import Access, Bus

I8042_COMMAND, I8042_RESET = 0x64, 0xFE  # IBM PC/AT: pulse output line 0, the processor's reset
RESET_CONTROL, RESET_CPU = 0xCF9, 0x04  # Intel chipsets: bit 2 resets
SLEEP_CONTROL, SLEEP_STATUS = 0x600, 0x601  # ACPI 6.5, 4.8.3.7; where our FADT says they are
SLEEP_ENABLE, SLEEP_TYPE_SHIFT, S5 = 0x20, 2, 5

End = Callable[[str], None]


def add(bus: Bus, end: End) -> None:
    """Puts them on the bus."""

    def i8042(access: Access) -> int:
        if access.write and access.value & 0xFF == I8042_RESET:
            end("reset")
        return 0  # status: nothing to read, ready for a command

    def reset_control(access: Access) -> int:
        if access.write and access.value & RESET_CPU:
            end("reset")
        return 0

    def sleep(access: Access) -> int:
        enabled = access.write and access.address == SLEEP_CONTROL and access.value & SLEEP_ENABLE
        if enabled and access.value >> SLEEP_TYPE_SHIFT & 7 == S5:
            end("poweroff")
        return 0

    bus.add_ports(I8042_COMMAND, 1, i8042)
    bus.add_ports(RESET_CONTROL, 1, reset_control)
    bus.add_ports(SLEEP_CONTROL, 2, sleep)

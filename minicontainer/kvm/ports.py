"""Port numbers of the devices that end a machine, for the ACPI tables and for the devices."""

from __future__ import annotations

I8042_COMMAND = 0x64  # IBM PC/AT: the keyboard controller
RESET_CONTROL = 0xCF9  # Intel chipsets
SLEEP_CONTROL, SLEEP_STATUS = 0x600, 0x601  # ACPI 6.5, 4.8.3.7; arbitrary ports, which the FADT announces

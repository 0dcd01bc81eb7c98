"""Port numbers of devices, for the ACPI tables and for the devices."""

from __future__ import annotations

from minicontainer.native import lib

I8042_COMMAND = 0x64  # IBM PC/AT: the keyboard controller
COM1, COM1_PORTS = 0x3F8, 8  # IBM PC/AT: a 16550; handled in C (csrc/kvm/serial.c)
RTC_INDEX, RTC_DATA = 0x70, 0x71  # IBM PC/AT
SYSTEM_CONTROL = 0x92  # IBM PS/2
RESET_CONTROL = 0xCF9  # Intel chipsets
FW_CFG_SELECTOR, FW_CFG_DATA, FW_CFG_DMA = 0x510, 0x511, 0x514  # QEMU docs/specs/fw_cfg.rst
SLEEP_CONTROL, SLEEP_STATUS = lib.MC_SLEEP_CONTROL, lib.MC_SLEEP_STATUS  # csrc/vmm has them too

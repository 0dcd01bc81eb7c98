"""The devices with which a guest ends its machine: keyboard controller, reset ports, ACPI's sleep register, debug-exit.

Each is a handler for the bus. They have no state, so all machines use the same ones.
"""

from __future__ import annotations

from minicontainer.kvm.exits import GuestEnd
from minicontainer.kvm.ports import I8042_COMMAND, RESET_CONTROL, SLEEP_CONTROL, SLEEP_STATUS, SYSTEM_CONTROL
from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kvm.bus import Access, Handler

DEBUG_CONSOLE = lib.MC_DEBUG_CONSOLE_PORT
I8042_RESET = 0xFE  # IBM PC/AT: pulse output line 0, the processor's reset
FAST_RESET, A20 = 0x01, 0x02  # bits of port 0x92
RESET_CPU = 0x04  # Intel chipsets: bit 2 resets
SLEEP_ENABLE, SLEEP_TYPE_SHIFT, S5 = 0x20, 2, 5


def i8042(access: Access) -> int:
    """The keyboard controller's command port: there is no keyboard, only the line that resets the processor."""
    if access.write and access.value & 0xFF == I8042_RESET:
        raise GuestEnd("reset")
    return 0  # status: no data to read, ready for a command


def no_keyboard(access: Access) -> int:
    """The same line, with a status as where there is no controller: firmware would wait for the keyboard's answers."""
    i8042(access)
    return 0xFF


def system_control(access: Access) -> int:
    """Port 0x92. Address line 20 is always on."""
    if access.write and access.value & FAST_RESET:
        raise GuestEnd("reset")
    return A20


def reset_control(access: Access) -> int:
    """Port 0xcf9."""
    if access.write and access.value & RESET_CPU:
        raise GuestEnd("reset")
    return 0


def sleep(access: Access) -> int:
    """ACPI's sleep control and status registers."""
    enabled = access.write and access.address == SLEEP_CONTROL and access.value & SLEEP_ENABLE
    if enabled and access.value >> SLEEP_TYPE_SHIFT & 7 == S5:
        raise GuestEnd("poweroff")
    return 0


def debug_exit(access: Access) -> int:
    """A further port for what csrc/kvm/vcpu.c does at MC_DEBUG_EXIT_PORT. QEMU has its isa-debug-exit where the user
    wants it, and kernels have that port built in."""
    if access.write:
        raise GuestEnd("debug-exit", access.value & 0xFF)
    return 0


PORTS: dict[int, Handler] = {
    I8042_COMMAND: i8042,
    SYSTEM_CONTROL: system_control,
    RESET_CONTROL: reset_control,
    SLEEP_CONTROL: sleep,
    SLEEP_STATUS: sleep,
}

"""The virtio devices that a machine can have (csrc/vmm/devices.c), and the driver that each needs in the guest."""

from __future__ import annotations

from minicontainer.native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple

TRANSPORT = "virtio_mmio"  # the module that all devices need


class Device(NamedTuple):
    """``kind``: MC_DEVICE_*; ``module``: its driver, which may be built in; ``optional``: a machine does without, if
    the kernel has no such driver; ``given``: the name of the monitor's input that it serves, if it serves one."""

    kind: int
    module: str
    optional: bool = False
    given: str = ""


CONSOLE = Device(lib.MC_DEVICE_CONSOLE, "virtio_console")
FILE_SYSTEM = Device(lib.MC_DEVICE_FILE_SYSTEM, "virtiofs")
VSOCK = Device(lib.MC_DEVICE_VSOCK, "vmw_vsock_virtio_transport", optional=True, given="vsock")
ALWAYS = (CONSOLE, FILE_SYSTEM)


def drivers(devices: Sequence[Device]) -> tuple[list[str], list[str]]:
    """The modules without which these devices cannot be used, and those that may be missing."""
    needed = [device.module for device in devices if not device.optional]
    return [TRANSPORT, *needed], [device.module for device in devices if device.optional]

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
    the kernel has no such driver; ``given``: the slot of the monitor's plan with what it serves, if it serves that;
    ``uses``: modules beside the driver, without which it is of no use."""

    kind: int
    module: str
    optional: bool = False
    given: str = ""
    uses: tuple[str, ...] = ()


CONSOLE = Device(lib.MC_DEVICE_CONSOLE, "virtio_console")
FILE_SYSTEM = Device(lib.MC_DEVICE_FILE_SYSTEM, "virtiofs")
BALLOON = Device(lib.MC_DEVICE_BALLOON, "virtio_balloon", optional=True)
RNG = Device(lib.MC_DEVICE_RNG, "virtio_rng", optional=True)
NETWORK = Device(lib.MC_DEVICE_NETWORK, "virtio_net", given="network")
VSOCK = Device(lib.MC_DEVICE_VSOCK, "vmw_vsock_virtio_transport", optional=True, given="vsock")
ROOT_IMAGE = "root-image"
ALWAYS = (CONSOLE, FILE_SYSTEM, BALLOON, RNG)


def root_image(kind: str) -> Device:
    """The disk with an image of ROOTFS, a file system of this type, below an overlay."""
    return Device(lib.MC_DEVICE_BLOCK, "virtio_blk", given=ROOT_IMAGE, uses=(kind, "overlay"))


def drivers(devices: Sequence[Device]) -> tuple[list[str], list[str]]:
    """The modules without which these devices cannot be used, and those that may be missing."""
    needed = [name for device in devices if not device.optional for name in (device.module, *device.uses)]
    return [TRANSPORT, *needed], [device.module for device in devices if device.optional]

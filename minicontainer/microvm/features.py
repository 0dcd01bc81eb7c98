"""What a machine asks of Linux: the drivers of its devices, and what its init needs.

Each feature has an option of Linux's configuration. Where that cannot be read, a driver that is built in is known by a
string that its source puts into the kernel's image.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from minicontainer.records import NamedTuple


class Feature(NamedTuple):
    """``module``: its name, for what may be a module; ``marks``: strings of an image, of which one is there;
    ``needed``: whether no machine runs without it."""

    name: str
    option: str
    module: str = ""
    marks: tuple[bytes, ...] = ()
    needed: bool = False


# init/initramfs.c: which of the two, depends on CONFIG_BLK_DEV_RAM
INITRAMFS = Feature(
    "initramfs", "CONFIG_BLK_DEV_INITRD", "", (b"unpack rootfs image as initramfs", b"Unpacking initramfs"), True
)
ACPI = Feature("acpi", "CONFIG_ACPI", "", (b"ACPI0007",))  # drivers/acpi/acpi_processor.c
COMMAND_LINE = Feature(
    "command-line", "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES", "", (b"virtio_mmio.device\0",)
)  # the parameter of drivers/virtio/virtio_mmio.c
FEATURES = (
    INITRAMFS,
    Feature("devtmpfs", "CONFIG_DEVTMPFS", "", (b"devtmpfs\0",), True),
    ACPI,
    COMMAND_LINE,
    Feature("virtio-mmio", "CONFIG_VIRTIO_MMIO", "virtio_mmio", (b"virtio-mmio\0",), True),
    Feature("console", "CONFIG_VIRTIO_CONSOLE", "virtio_console", (b"virtio_console\0",), True),
    Feature("virtiofs", "CONFIG_VIRTIO_FS", "virtiofs", (b"virtiofs\0",), True),
    Feature("balloon", "CONFIG_VIRTIO_BALLOON", "virtio_balloon", (b"virtio_balloon\0",)),
    Feature("rng", "CONFIG_HW_RANDOM_VIRTIO", "virtio_rng", (b"virtio_rng\0",)),
    Feature("network", "CONFIG_VIRTIO_NET", "virtio_net", (b"virtio_net\0",)),
    Feature("block", "CONFIG_VIRTIO_BLK", "virtio_blk", (b"virtio_blk\0",)),
    Feature("vsock", "CONFIG_VIRTIO_VSOCKETS", "vmw_vsock_virtio_transport", (b"vmw_vsock_virtio_transport\0",)),
    Feature("erofs", "CONFIG_EROFS_FS", "erofs", (b"cannot find valid erofs superblock",)),  # fs/erofs/super.c
    Feature("ext4", "CONFIG_EXT4_FS", "ext4", (b"VFS: Can't find ext4 filesystem",)),  # fs/ext4/super.c
    Feature("overlay", "CONFIG_OVERLAY_FS", "overlay", (b"trusted.overlay.",)),
    Feature("seccomp", "CONFIG_SECCOMP_FILTER", "", (b"actions_avail\0",)),
)
ANNOUNCEMENTS = (ACPI.name, COMMAND_LINE.name)  # of which a kernel needs one
REMEDY = "minicontainer kernel fetch --default, or --kernel"


def of_module(module: str) -> Feature:
    """The feature of a module; of one that is not in the table, with its name alone."""
    return next((f for f in FEATURES if f.module == module), Feature(module, "", module))


def of_name(name: str) -> Feature:
    """The feature of this name; of one that is not in the table, with its name alone."""
    return next((f for f in FEATURES if f.name == name), Feature(name, ""))


def described(feature: Feature) -> str:
    """``virtiofs (CONFIG_VIRTIO_FS)``, for an error."""
    name = feature.module or feature.name
    return f"{name} ({feature.option})" if feature.option else name

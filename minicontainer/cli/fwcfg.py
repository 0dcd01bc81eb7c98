"""The options --firmware and --fw-cfg of ``minicontainer kvm-boot``."""

from __future__ import annotations

import os

from minicontainer.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LARGEST = 256 << 20  # bytes of a file
OF_KERNELS = ("kernel", "mode", "load_address", "entry", "initrd", "append", "bios_data")


def check_firmware_options(options: dict[str, Any]) -> None:
    """SpecError: an option is for a kernel, and firmware was given."""
    for name in OF_KERNELS:
        if options[name] not in (None, False):
            other = "KERNEL" if name == "kernel" else f"--{name.replace('_', '-')}"
            raise SpecError("firmware", options["firmware"], f"starts as after a reset: {other} does not apply to it")


def files(texts: Sequence[str]) -> dict[str, bytes]:
    """The files of ``NAME,file=FILE`` and ``NAME,string=TEXT`` (as of QEMU's -fw_cfg)."""
    found: dict[str, bytes] = {}
    for text in texts:
        name, _, rest = text.removeprefix("name=").partition(",")
        kind, equals, value = rest.partition("=")
        if kind not in ("file", "string") or not equals:
            raise SpecError("fw-cfg", text, "must be NAME,file=FILE or NAME,string=TEXT")
        if name in found:
            raise SpecError("fw-cfg", name, "is given twice")
        found[name] = os.fsencode(value) if kind == "string" else content_of(value)
    return found


def content_of(path: str) -> bytes:
    """The content of a file for fw_cfg."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise SpecError("fw-cfg", path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > LARGEST:
        raise SpecError("fw-cfg", path, f"is larger than {LARGEST >> 20} MiB")
    return content

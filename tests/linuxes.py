"""Hand-made Linux kernels, trees of modules and libraries as libkrunfw, for tests that boot none of them."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import kernels as k

RELEASE = "6.1.0-9-cloud-amd64"
VERSION_AT = 0x300  # in the setup code of a bzImage, behind its header
CONFIG = """
# a comment
CONFIG_BLK_DEV_INITRD=y
CONFIG_DEVTMPFS=y
CONFIG_ACPI=y
CONFIG_VIRTIO_MMIO=m
CONFIG_VIRTIO_CONSOLE=m
CONFIG_VIRTIO_FS=m
CONFIG_SECCOMP_FILTER=y
# CONFIG_OVERLAY_FS is not set
"""
WHOLE = (  # strings of a kernel that has all built in, and learns of devices by its command line
    b"unpack rootfs image as initramfs", b"devtmpfs\0", b"virtio_mmio.device\0", b"virtio-mmio\0", b"virtio_console\0",
    b"virtiofs\0",
)  # fmt: skip


def banner(release: str) -> bytes:
    """As init/version.c has it, behind the format of /proc/version."""
    return b"Linux version %s (x)\0" + b"Linux version " + release.encode() + b" (a@b) (gcc) #1 SMP\n\0"


def bzimage(release: str = RELEASE, payload: bytes = b"") -> bytes:
    """A bzImage that says its release."""
    image = bytearray(k.bzimage(payload))
    struct.pack_into("<H", image, 0x20E, VERSION_AT - 0x200)
    text = f"{release} (a@b) #1 SMP".encode() + b"\0"
    image[VERSION_AT : VERSION_AT + len(text)] = text
    return bytes(image)


def vmlinux(release: str = RELEASE, *strings: bytes, pvh: bool = True) -> bytes:
    """An ELF file with a banner and strings of drivers."""
    content = k.CODE + banner(release) + b"\0" + b"\0".join(strings) + b"\0"
    return k.elf(64, [k.Segment(content, k.AT), *([k.pvh_note(k.AT + 2)] if pvh else [])], k.AT + 1)


def ikconfig(text: str) -> bytes:
    """As kernel/configs.c holds a configuration."""
    packer = zlib.compressobj(wbits=31)
    return b"IKCFG_ST" + packer.compress(text.encode()) + packer.flush() + b"IKCFG_ED"


# ---- modules

SIGNATURE = struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, 100)


def module(name: str, *depends: str, extra: Mapping[bytes, bytes] | None = None) -> bytes:
    """A relocatable ELF file as a module is: .text, .modinfo, .BTF and debug information, symbols and names."""
    information = b"license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=" + name.encode() + b"\0"
    sections = {
        b".text": (1, 6, 16, b"\xc3" * 33),
        b".modinfo": (1, 2, 1, information),
        b".BTF": (1, 0, 1, b"types" * 9),
        b".debug_info": (1, 0, 1, b"debug" * 99),
        b".bss": (8, 3, 32, b""),
        b".symtab": (2, 0, 8, bytes(48)),
        **{key: (1, 0, 1, value) for key, value in (extra or {}).items()},
    }
    names = b"\0" + b"".join(key + b"\0" for key in (*sections, b".shstrtab"))
    sections[b".shstrtab"] = (3, 0, 1, names)
    content, table = b"", [bytes(64)]
    for key, (kind, flags, alignment, raw) in sections.items():
        content += bytes(-(64 + len(content)) % alignment)
        at = names.index(key + b"\0")
        table.append(
            struct.pack("<IIQQQQIIQQ", at, kind, flags, 0, 64 + len(content), len(raw) or 8, 0, 0, alignment, 0)
        )
        content += raw
    content += bytes(-len(content) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(table)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 1, 62, 1, 0, 0, 64 + len(content), 0, 64, 0, 0, 64, count, count - 1)
    return head + content + b"".join(table)


def signed(content: bytes) -> bytes:
    """As scripts/sign-file signs it."""
    return content + b"s" * 100 + SIGNATURE + b"~Module signature appended~\n"


NEEDS = {
    "drivers/virtio/virtio": (),
    "drivers/virtio/virtio_ring": ("virtio",),
    "drivers/virtio/virtio_mmio": ("virtio", "virtio_ring"),
    "drivers/char/virtio_console": ("virtio_ring", "virtio"),
    "fs/fuse/fuse": (),
    "fs/fuse/virtiofs": ("fuse", "virtio_ring", "virtio"),
    "drivers/char/hw_random/virtio-rng": ("virtio", "virtio_ring"),
}
ORDER = ["virtio", "virtio_ring", "virtio_mmio", "virtio_console", "fuse", "virtiofs"]  # for ALWAYS, but rng


def modules(
    directory: Path,
    needs: Mapping[str, Sequence[str]] = NEEDS,
    *,
    built_in: Sequence[str] = (),
    listed: bool = True,
    suffix: str = "",
) -> Path:
    """A tree of modules; with modules.dep if ``listed``."""
    directory.mkdir(parents=True)
    paths = {name.rpartition("/")[2].replace("-", "_"): f"kernel/{name}.ko{suffix}" for name in needs}
    for (name, below), path in zip(needs.items(), paths.values(), strict=True):
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(signed(module(name.rpartition("/")[2], *below)))
    lines = [
        f"{paths[name.rpartition('/')[2].replace('-', '_')]}: {' '.join(paths[b] for b in below)}".rstrip()
        for name, below in needs.items()
    ]
    if listed:
        (directory / "modules.dep").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / "modules.order").write_text("".join(f"{path}\n" for path in paths.values()), encoding="utf-8")
    text = "".join(f"kernel/{name}.ko\n" for name in built_in)
    (directory / "modules.builtin").write_text(text, encoding="utf-8")
    return directory


def tree(top: Path, release: str = RELEASE, *, config: str | None = CONFIG, usr: str = "", listed: bool = True) -> Path:
    """What a package of a kernel holds; returns its file."""
    (top / "boot").mkdir(parents=True, exist_ok=True)
    kernel = top / f"boot/vmlinuz-{release}"
    kernel.write_bytes(bzimage(release))
    if config is not None:
        (top / f"boot/config-{release}").write_text(config, encoding="utf-8")
    modules(top / f"{usr}lib/modules/{release}", listed=listed)
    return kernel


# ---- libkrunfw

LOAD = 0x1000000
LIBRARY = """
#include <stddef.h>
__attribute__ ((aligned (65536))) char KERNEL_BUNDLE[] = {{ {bytes}, 0 }};
char * krunfw_get_kernel(size_t *load_addr, size_t *entry_addr, size_t *size)
{{
    *load_addr = {load:#x};
    *entry_addr = {entry:#x};
    *size = (((sizeof(KERNEL_BUNDLE) - 1 + 65535) / 65536) * 65536);
    return &KERNEL_BUNDLE[0];
}}
int krunfw_get_version() {{ return 5; }}
"""


def libkrunfw(
    path: Path,
    *,
    options: Sequence[str] = ("-O0",),
    image: bytes | None = None,
    entry: int = 0x120,
    source: str = LIBRARY,
) -> bytes:
    """Builds such a library; returns the kernel that is in it."""
    image = k.CODE.ljust(0x200, b"\x90") + banner("6.12.9") + b"\0".join(WHOLE) if image is None else image
    code = source.format(bytes=",".join(map(str, image)), load=LOAD, entry=LOAD + entry)
    command = ["cc", "-shared", "-fPIC", *options, "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=code, text=True, check=True)
    return image

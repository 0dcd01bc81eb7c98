"""Files that are known, and are no kernels: else they would be loaded as flat binaries. Each is an error by name."""

from __future__ import annotations

from minicontainer.kvm.boot.format import Usual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from minicontainer.kvm.boot.format import Options
    from minicontainer.kvm.boot.kernel import Kernel
    from minicontainer.kvm.memory import GuestMemory

ANYWAY = "--mode real runs it as it is"
KERNEL_IN_IT = "the kernel that is in it"
KNOWN = (  # offset, bytes there, what the file is, remedy; the first that fits is told
    (0, b"\x1f\x8b\x08", "is packed by gzip", "gunzip"),  # RFC 1952, 2.3.1
    (0, b"\xfd7zXZ\0", "is packed by xz", "unxz"),
    (0, b"\x28\xb5\x2f\xfd", "is packed by zstd", "unzstd"),  # RFC 8878, 3.1.1
    (0, b"BZh", "is packed by bzip2", "bunzip2"),
    (0, b"\x04\x22\x4d\x18", "is packed by lz4", "unlz4"),  # lz4's doc/lz4_Frame_format.md
    (0, b"\x02\x21\x4c\x18", "is packed by lz4", "unlz4"),
    (0, b"PK\3\4", "is a zip archive", "unzip"),
    (0, b"!<arch>\n", "is a package of Debian, or a library", KERNEL_IN_IT),  # ar(5), deb(5)
    (0, b"\xed\xab\xee\xdb", "is a package of rpm", KERNEL_IN_IT),
    (257, b"ustar", "is a tar archive", KERNEL_IN_IT),
    (0x38, b"ARM\x64", "is a kernel for arm64", "a kernel for x86"),  # Linux Documentation/arch/arm64/booting.rst
    (0x30, b"RISCV\0\0\0", "is a kernel for RISC-V", "a kernel for x86"),  # Linux arch/riscv/boot-image-header.rst
    (0x24, b"\x18\x28\x6f\x01", "is a kernel for arm", "a kernel for x86"),  # Linux arch/arm/boot/compressed/head.S
    (0, b"MZ", "is a program for EFI, DOS or Windows", "the bzImage, or an ELF file"),  # Linux's bzImages have HdrS too
    (0, b"0707", "is a cpio archive", "--initrd"),  # as Linux's initial root file systems are; cpio(5)
    (0, b"#!", "is a script", "a kernel, or a guest of --list"),
    (0, b"QFI\xfb", "is a disk image", "the kernel that is on it"),
    (0, b"KDMV", "is a disk image", "the kernel that is on it"),
    (0, b"conectix", "is a disk image", "the kernel that is on it"),
    (0, b"vhdxfile", "is a disk image", "the kernel that is on it"),
    (0x40, b"\x7f\x10\xda\xbe", "is a disk image", "the kernel that is on it"),  # VirtualBox's
    (512, b"EFI PART", "is a disk image", "the kernel that is on it"),  # UEFI 2.10, 5.3.2
    (0x8001, b"CD001", "is an image of a CD", "the kernel that is on it"),  # ECMA-119, 8.1.2
    (0x438, b"\x53\xef", "is a file system (ext4)", "the kernel that is on it"),
    (0, b"hsqs", "is a file system (squashfs)", "the kernel that is on it"),
    (1024, b"\xe2\xe1\xf5\xe0", "is a file system (erofs)", "the kernel that is on it"),
    (0, b"XFSB", "is a file system (xfs)", "the kernel that is on it"),
    (0, b"\x27\x05\x19\x56", "is packed for U-Boot", "dumpimage"),
    (0, b"\xd0\x0d\xfe\xed", "is a device tree", "a kernel"),  # Devicetree Specification, 5.2
    (0, b"ANDROID!", "is a boot image of Android", KERNEL_IN_IT),
)
OFFSETS = frozenset(offset for offset, *_ in KNOWN)
MAGICS = {at: tuple(magic for offset, magic, *_ in KNOWN if offset == at) for at in OFFSETS}
PARTITIONS, SECTOR, MARK = (446, 462, 478, 494), 512, b"\x55\xaa"  # of a master boot record
# Firmware: its size, and what it begins with 16 bytes before its end, behind nop, cli and cld: a jump; to F000 if it is
# a far one; or EDK2's question whether the processor is in protected mode.
BLOCK, RESET, HARMLESS = 64 << 10, 16, b"\x90\xfa\xfc"
JUMPS, FAR_JUMP, BIOS_SEGMENT, EDK2 = (b"\xe9", b"\xeb"), b"\xea", b"\x00\xf0", bytes.fromhex("0f 20 c0 a8 01")
CONTROLS = frozenset(range(32)) - set(b"\t\n\f\r") | {127}


class Foreign(Usual):
    """The format of no kernel."""

    name, modes, options = "foreign", (), ()

    def is_mine(self, kernel: Kernel) -> bool:
        """As Format."""
        return reason(kernel) is not None

    def memory(self, kernel: Kernel) -> NoReturn:
        """KernelError: the file is no kernel."""
        raise kernel.error(*(reason(kernel) or ("", "")))

    def load(self, kernel: Kernel, memory: GuestMemory, options: Options) -> NoReturn:
        """KernelError: the file is no kernel."""
        self.memory(kernel)


FORMATS = (Foreign(),)


def reason(kernel: Kernel) -> tuple[str, str] | None:
    """What the file is, and a remedy."""
    head = kernel.head
    if any(head.startswith(magics, offset) for offset, magics in MAGICS.items()):
        return next((what, remedy) for offset, magic, what, remedy in KNOWN if head.startswith(magic, offset))
    if _has_partitions(kernel):
        return "is a disk image", f"the kernel that is on it; {ANYWAY}"
    if is_firmware(kernel):
        return "is firmware", f"--firmware; {ANYWAY}"
    if kernel.size > SECTOR and head[510:512] == MARK:
        return "is a boot sector with more behind it, which it would read from a disk", f"its first 512 bytes; {ANYWAY}"
    return ("is plain text", ANYWAY) if _is_text(head) else None


def is_firmware(kernel: Kernel) -> bool:
    """Whether a processor may begin 16 bytes before the end of the file."""
    if kernel.size % BLOCK or kernel.size == 0:
        return False
    start = kernel.read(kernel.size - RESET, RESET, "its end").lstrip(HARMLESS)
    is_far = start.startswith(FAR_JUMP) and start[3:5] == BIOS_SEGMENT
    return is_far or start.startswith((*JUMPS, EDK2))


def _has_partitions(kernel: Kernel) -> bool:
    """Whether a master boot record has a partition that is in the file."""
    head = kernel.head
    if kernel.size <= SECTOR or head[510:512] != MARK or any(head[at] & 0x7F for at in PARTITIONS):
        return False
    starts = [int.from_bytes(head[at + 8 : at + 12], "little") for at in PARTITIONS if head[at + 4]]
    return any(0 < start * SECTOR < kernel.size for start in starts)


def _is_text(head: bytes) -> bool:
    """Whether these first bytes of a file are text: of words, in ASCII or UTF-8."""
    if CONTROLS & set(head) or not set(b" \n") & set(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as e:
        return len(head) - e.start < 4 and e.reason == "unexpected end of data"
    return True

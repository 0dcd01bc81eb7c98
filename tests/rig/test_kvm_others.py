"""Other kernels of Debian's packages, as they are, each to the point that its documentation promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.kvm import Machine

pytestmark = [pytest.mark.needs("rig", "kvm-hardware"), pytest.mark.timeout(400)]

PATIENCE = 100.0
ROUNDS = 150  # of two seconds


@pytest.fixture
def guests() -> Path:
    return Path(os.environ["RIG_GUESTS"])


@pytest.mark.parametrize("mode", [None, "multiboot2", "multiboot"])
def test_xen_misses_its_first_domain(guests: Path, mode: str | None) -> None:
    """It skips the first word of its command line (xen/arch/x86/setup.c)."""
    with Machine("512M") as machine:
        entry = machine.load(guests / "xen.gz", mode=mode, append="xen console=com1 com1=115200,8n1 reboot=k")
        result = machine.run(timeout=PATIENCE)
    said = result.output.decode("utf-8", "replace")
    assert entry.kind == (mode or "multiboot2")
    assert "(XEN) Command line: console=com1 com1=115200,8n1 reboot=k" in said
    assert "dom0 kernel not specified. Check bootloader configuration" in said
    assert result.reason in ("reset", "triple-fault"), (result, said[-500:])


def test_xen_finds_the_mp_table(guests: Path) -> None:
    """It looks for one before it has read ACPI's tables, which then tell it the same number of processors."""
    with Machine("512M", cpus=2, bios_data=True) as machine:
        line = "xen console=com1 com1=115200,8n1 loglvl=all"
        machine.load(guests / "xen.gz", initrd=str(guests / "vmlinuz"), append=line)
        said = ""
        for _ in range(ROUNDS):
            result = machine.run(timeout=2)
            said = result.output.decode("utf-8", "replace")
            if "SMP: Allowing" in said or result.reason != "timeout":
                break
    assert "(XEN) found SMP MP-table at 0009fc10" in said
    assert "(XEN) SMP: Allowing 2 CPUs" in said


def test_memtest_shows_its_screen_on_the_serial_line(guests: Path) -> None:
    with Machine("64M") as machine:
        machine.load(guests / "memtest.bin", append="console=ttyS0,115200")
        seen = bytearray()
        for _ in range(ROUNDS):
            result = machine.run(timeout=2)
            seen += result.output
            if b"Memtest86+" in seen or result.reason != "timeout":
                break
    assert b"Memtest86+" in seen, (result, bytes(seen[-300:]))


@pytest.mark.parametrize("name", ["u-boot.rom", "u-boot64.rom"])
def test_u_boot_comes_to_its_prompt(guests: Path, name: str) -> None:
    with Machine("256M") as machine:
        machine.load_firmware(guests / name)
        seen = bytearray()
        for _ in range(ROUNDS):
            seen += machine.run(timeout=2).output
            if b"Hit any key to stop autoboot" in seen:
                break
    assert b"Hit any key to stop autoboot" in seen, bytes(seen[-500:])


def on_screen(machine: Machine) -> bytes:
    """What its text screen shows; b"": it has none."""
    return "\n".join(machine.screen.text()).encode() if machine.screen is not None else b""


def boots(
    guests: Path, name: str, text: bytes, memory: str, append: str | None = None, *, screen: bool = False
) -> tuple[str, str]:
    """Boots the kernel until it has printed the text, or its screen shows it: the kind of its entry, and what it
    said."""
    with Machine(memory, screen=screen) as machine:
        entry = machine.load(guests / name, append=append)
        seen = bytearray()
        for _ in range(ROUNDS):
            result = machine.run(timeout=2)
            seen += on_screen(machine) if screen else result.output
            if text in seen or result.reason != "timeout":
                break
    assert text in seen, (result, bytes(seen[-500:]))
    return entry.kind, seen.decode("utf-8", "replace")


def test_gnu_mach_misses_its_servers(guests: Path) -> None:
    kind, said = boots(guests, "gnumach.gz", b"No bootstrap code loaded", "256M", "console=com0")
    assert kind == "multiboot"
    assert "biosmem: 000000000000100000:000000000010000000, available" in said


def test_ipxe_finds_no_network(guests: Path) -> None:
    """It has no entry but that of its setup code, in real mode."""
    _, said = boots(guests, "ipxe.lkrn", b"No more network devices", "64M")
    assert "iPXE initialising devices...ok" in said


def test_memtest_in_32_bits_on_its_screen(guests: Path) -> None:
    boots(guests, "memtest32.bin", b"Memtest86+", "64M", screen=True)


def test_debian_13s_kernel_misses_its_root(guests: Path) -> None:
    """It is packed by zstd."""
    kind, _ = boots(guests, "vmlinuz-13", b"Unable to mount root fs", "512M", "console=ttyS0 panic=-1")
    assert kind == "pvh"


def test_linux_on_its_screen(guests: Path) -> None:
    """The rig's own kernel, Debian's generic one, which has a driver of VGA's text mode."""
    kernel = next((guests.parent / "kernel/boot").glob("vmlinuz-*"))
    boots(guests, str(kernel), b"Unable to mount root fs", "512M", "console=tty0", screen=True)

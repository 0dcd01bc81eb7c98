"""Firmware below 4 GiB, and what it is told: a hand-made image, Debian's SeaBIOS, and guests that read fw_cfg."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from box import Done, refusal
from supplies import Run

from minicontainer.kvm import Machine

pytestmark = pytest.mark.needs("kvm")

Boot = Callable[..., Done]
SEABIOS = Path("/usr/share/seabios")
# At F000:FFF0: jmp to F000:FF00, where al = 7 goes to the debug-exit port.
RESET = b"\xe9\x0d\xff"
CODE = b"\xb0\x07\xe6\xf4"


@pytest.fixture
def boot(minicontainer_cli: Run) -> Boot:
    return lambda *words: minicontainer_cli("kvm-boot", *words)


def image(size: int = 0x10000, code: bytes = CODE) -> bytes:
    """Of ``size`` bytes, with the code 256 bytes below its end."""
    end = code.ljust(0xF0, b"\x90") + RESET.ljust(16, b"\x90")
    return b"\xf4" * (size - len(end)) + end


@pytest.mark.parametrize("size", [0x1000, 0x10000, 0x40000, 1 << 20, 16 << 20])
def test_it_begins_at_the_reset_vector(size: int) -> None:
    with Machine("1M") as machine:
        assert machine.load_firmware(image(size)).mode == "reset"
        result = machine.run(timeout=60)
    assert (result.reason, result.returncode) == ("debug-exit", 7)


def test_its_end_is_below_1_mib_and_can_be_written() -> None:
    code = (
        b"\xea\x05\xff\x00\xf0"  # jmp far F000:FF05, the copy below 1 MiB
        b"\x2e\xc6\x06\x00\x00\x2a"  # mov byte cs:[0], 42
        b"\x2e\xa0\x00\x00\xe6\xf4"  # mov al, cs:[0]; out 0xf4, al
    )
    with Machine("1M") as machine:
        machine.load_firmware(image(code=code))
        assert machine.run(timeout=60).returncode == 42
        assert machine.memory[0xF0000] == b"\x2a"


def test_what_it_writes_to_its_place_below_4_gib_is_lost() -> None:
    code = (
        b"\x2e\xc6\x06\x00\x00\x2a"  # mov byte cs:[0], 42: cs begins 64 KiB below 4 GiB
        b"\x2e\xa0\x00\x00\xe6\xf4"  # mov al, cs:[0]; out 0xf4, al
    )
    with Machine("1M") as machine:
        machine.load_firmware(image(code=code))
        assert machine.run(timeout=60).returncode == 0xF4


def test_the_clocks_ram_tells_of_memory() -> None:
    with Machine("40M") as machine:
        machine.load_firmware(image())
        ram = bytes(machine.rtc.ram)
    assert struct.unpack_from("<H", ram, 0x30) == (39 * 1024,)  # KiB above 1 MiB
    assert struct.unpack_from("<H", ram, 0x34) == (24 * 16,)  # 64 KiB above 16 MiB


@pytest.mark.parametrize("name", ["bios.bin", "bios-256k.bin", "bios-microvm.bin"])
def test_seabios_finds_nothing_to_boot(name: str) -> None:
    """It shows its screen on the serial line, as fw_cfg tells it to."""
    with Machine("64M") as machine:
        machine.load_firmware(SEABIOS / name)
        said = b""
        for _ in range(90):
            said += machine.run(timeout=1).output
            if b"No bootable device." in said:
                break
    assert b"SeaBIOS (version" in said
    assert b"No bootable device." in said


def test_seabios_shows_its_screen_by_a_vga_bios() -> None:
    """Debian's, which it takes from fw_cfg, for the registers and the memory of `screen`."""
    rom = (SEABIOS / "vgabios-isavga.bin").read_bytes()
    last = "No bootable device.  Retrying in 60 seconds."
    with Machine("64M", screen=True, fw_cfg={"vgaroms/vgabios.bin": rom}) as machine:
        machine.load_firmware(SEABIOS / "bios.bin")
        for _ in range(90):
            machine.run(timeout=1)
            assert machine.screen is not None
            lines = machine.screen.text()
            if last in [line.rstrip() for line in lines]:
                break
    assert lines[0].startswith("SeaBIOS (version")
    assert last in [line.rstrip() for line in lines]


def test_the_command_line(boot: Boot, tmp_path: Path) -> None:
    rom = tmp_path / "rom"
    rom.write_bytes(image())
    done = boot("--firmware", str(rom))
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["hello"], 125, ["--firmware", "KERNEL does not apply to it"]),
        (["--mode", "real"], 125, ["--firmware", "--mode does not apply to it"]),
        (["--entry", "0"], 125, ["--firmware", "--entry does not apply to it"]),
        (["--append", ""], 125, ["--firmware", "--append does not apply to it"]),
        (["--bios-data"], 125, ["--firmware", "--bios-data does not apply to it"]),
        (["--memory", "64k"], 125, ["--memory 64k", "is too little for firmware", "--memory 64m"]),
        (["--fw-cfg", "etc/x"], 125, ["--fw-cfg etc/x: must be NAME,file=FILE or NAME,string=TEXT"]),
        (["--fw-cfg", "a,string="] * 2, 125, ["--fw-cfg a", "is given twice"]),
        (["--fw-cfg", "a b,string="], 125, ["--fw-cfg", "a b", "is no name of a file"]),
        (["--fw-cfg", "a,file=/nonexistent"], 125, ["--fw-cfg", "/nonexistent", "No such file or directory"]),
        (["--fw-cfg", "a,file=/dev/zero"], 125, ["--fw-cfg", "/dev/zero", "is larger than 256 MiB"]),
    ],
)
def test_options_that_are_refused(boot: Boot, tmp_path: Path, words: list[str], code: int, says: list[str]) -> None:
    rom = tmp_path / "rom"
    rom.write_bytes(image())
    refusal(boot("--firmware", str(rom), *words), code, says)


@pytest.mark.parametrize(("size", "code"), [(0, 126), (100, 126), ((16 << 20) + 0x1000, 126), (None, 127)])
def test_files_that_are_no_firmware(boot: Boot, tmp_path: Path, size: int | None, code: int) -> None:
    rom = tmp_path / "rom"
    if size is not None:
        rom.write_bytes(bytes(size))
    refusal(boot("--firmware", str(rom)), code, [str(rom)])


def test_a_guest_reads_a_file_of_fw_cfg(boot: Boot, tmp_path: Path) -> None:
    """The first file has the first key, 0x20."""
    code = tmp_path / "code"
    code.write_bytes(
        b"\xba\x10\x05\xb8\x20\x00\xef"  # mov dx, 0x510; mov ax, 0x20; out dx, ax
        b"\xba\x11\x05\xec\xe6\xe9\xec\xe6\xf4"  # mov dx, 0x511; in al, dx; out 0xe9, al; in al, dx; out 0xf4, al
    )
    (tmp_path / "file").write_bytes(b"A\x07")
    for option in (f"name=opt/a,file={tmp_path}/file", "opt/a,string=A\x07"):
        done = boot(str(code), "--fw-cfg", option)
        assert (done.returncode, done.stdout, done.stderr) == (7, "A", "")
    assert boot(str(code), "--fw-cfg", "opt/a,string=").returncode == 0
    assert boot(str(code), "--serial", "none").returncode == 0xFF  # no such device

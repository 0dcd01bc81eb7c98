"""The guests of csrc/guests: each does what its source says, and ends as it says; those that misbehave are stopped."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.kvm import guests
from minicontainer.kvm.boot import elf
from minicontainer.kvm.boot.kernel import Kernel
from minicontainer.kvm.bus import Access
from minicontainer.kvm.machine import Machine
from minicontainer.kvm.result import Result

pytestmark = pytest.mark.needs("kvm")

PATIENCE = 60.0  # seconds; the rig is slow
GREETING = b"Type, and it comes back. Ctrl-D ends.\r\n"
LINE = b"The quick brown fox jumps over the lazy dog; and again, and again.\n"


def run(name: str, *, timeout: float = PATIENCE, max_exits: int | None = None, memory: str = "2M") -> Result:
    with Machine(memory) as machine:
        machine.load(guests.path(name))
        return machine.run(timeout=timeout, max_exits=max_exits)


# ---- the list


def test_every_guest_that_is_listed_has_a_source_and_was_built() -> None:
    sources = {p.stem for p in (Path(__file__).parents[2] / "csrc/guests").glob("*.[Sc]")}
    assert sources == {*guests.names(), "bios"} == set(os.listdir(guests.DIRECTORY))
    assert all(os.path.isabs(guests.path(name)) for name in guests.names())


@pytest.mark.parametrize("name", ["", "bios", "../init", "no-such"])
def test_what_is_not_listed_is_no_guest(name: str) -> None:
    with pytest.raises(SpecError, match=r"^guest .*is no guest of this package \(hello, "):
        guests.path(name)


def test_a_guest_that_was_not_built_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guests, "DIRECTORY", str(tmp_path))
    with pytest.raises(UnsupportedError, match=f"{tmp_path}/hello.*make build"):
        guests.path("hello")


@pytest.mark.parametrize(
    ("name", "flags", "cpus"),
    [
        ("hello64", 0, 1),
        ("echo", elf.WANTS_IRQCHIP, 1),
        ("timer", elf.WANTS_IRQCHIP, 1),
        ("smp", elf.WANTS_IRQCHIP, 2),
        ("sieve", elf.WANTS_USER64, 1),
        ("memory", elf.WANTS_USER64, 1),
    ],
)
def test_a_note_says_what_a_guest_wants(name: str, flags: int, cpus: int) -> None:
    with Kernel(guests.path(name)) as kernel:
        found = elf.parse(kernel)
    assert (found.flags, found.cpus) == (flags, cpus)


@pytest.mark.parametrize("name", ["hello32", "hello64", "sieve"])
def test_an_elf_guest_keeps_its_symbols(name: str) -> None:
    assert b"\0_start\0" in Path(guests.path(name)).read_bytes()


# ---- those that behave


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("hello", b"Hello from real mode.\n"),
        ("hello32", b"Hello from protected mode.\n"),
        ("hello64", b"Hello from long mode.\n"),
        ("bootsector", b"Hello from a boot sector.\r\n"),
        ("timer", b"10 ticks\n"),
        ("smp", b"This is processor 0.\nThis is processor 1.\n"),
        ("mmio-nowhere", b"Read ffffffff.\n"),
        ("self-modifying", b"Version 1 ran.\nVersion 2 ran.\n"),
    ],
)
def test_prints_and_halts(name: str, output: bytes) -> None:
    result = run(name)
    assert (result.reason, result.returncode, result.output) == ("halt", 0, output), result.detail


def test_sieve_counts_primes_at_cpl_3() -> None:
    result = run("sieve")
    assert (result.reason, result.returncode, result.output) == ("debug-exit", 0, b"78498 primes\n"), result.detail
    assert result.registers["cs"] & 3 == 3


@pytest.mark.parametrize(("memory", "kib"), [("2M", 2048), ("3M", 3072), ("2052K", 2052)])
def test_memory_finds_all_there_is(memory: str, kib: int) -> None:
    result = run("memory", memory=memory)
    assert (result.reason, result.returncode, result.output) == ("debug-exit", 0, b"%d KiB\n" % kib), result.detail


@pytest.mark.parametrize(
    ("mode", "name"), [(None, "multiboot2"), ("multiboot2", "multiboot2"), ("multiboot", "multiboot")]
)
def test_multiboot_is_handed_its_command_line_and_modules(tmp_path: Path, mode: str | None, name: str) -> None:
    (tmp_path / "one").write_bytes(b"first\n")
    (tmp_path / "two").write_bytes(bytes(10_000) + b"\n")
    modules = f"{tmp_path}/one x=1,{tmp_path}/two"
    with Machine("32M") as machine:
        machine.load("multiboot", mode=mode, append="a b", initrd=modules)
        output = machine.run(timeout=PATIENCE).output
    first, second = (text.encode() for text in modules.split(","))
    assert output == f"{name}: a b\n".encode() + first + b": first\n" + second + b": " + bytes(10_000) + b"\n"


def test_multiboot_tells_another_loader() -> None:
    with Machine() as machine:
        machine.load("multiboot", mode="protected")
        assert machine.run(timeout=PATIENCE).output == b"not loaded by multiboot\n"


def test_echo_ends_with_what_was_there_before_it_ran() -> None:
    with Machine() as machine:
        machine.load(guests.path("echo"))
        machine.start()
        machine.serial.input(b"ab\rc\x04never")
        result = machine.run(timeout=PATIENCE)
    assert (result.reason, result.returncode) == ("debug-exit", 0), result.detail
    assert result.output == GREETING + b"ab\r\nc"


def test_echo_is_woken_by_every_byte() -> None:
    """Each byte is sent when the one before has come back: an interrupt, and a return from it, for each."""
    read, write = os.pipe()
    came_back: list[bytes] = []

    def type_it(machine: Machine) -> None:
        with open(read, "rb") as output:
            came_back.append(output.read(len(GREETING)))
            for byte in b"wake\r":
                machine.serial.input(bytes([byte]))
                came_back.append(output.read(2 if byte == 13 else 1))
            machine.serial.input(b"\x04")

    with Machine(serial=write) as machine:
        machine.load(guests.path("echo"))
        machine.start()
        thread = threading.Thread(target=type_it, args=(machine,))
        thread.start()
        try:
            result = machine.run(timeout=PATIENCE)
        finally:
            os.close(write)  # the end of the file, where the guest has not answered
            thread.join()
    assert (result.reason, came_back) == ("debug-exit", [GREETING, b"w", b"a", b"k", b"e", b"\r\n"]), result.detail


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_exits_writes_as_often_as_a_device_says(count: int) -> None:
    with Machine(want_ports=True) as machine:
        machine.load(guests.path("exits"))
        written = []

        @machine.port(0x510)
        def how_many(access: Access) -> int:
            assert access.size == 4
            return count

        @machine.port(0x514)
        def where(access: Access) -> int:
            return 0x520

        @machine.port(0x520)
        def target(access: Access) -> None:
            written.append(access.value)

        result = machine.run(timeout=PATIENCE)
    assert (result.reason, written) == ("halt", [ord(".")] * count)
    assert result.ports[0x520].count == count if count else 0x520 not in result.ports


# ---- those that misbehave


def test_triple_fault() -> None:
    result = run("triple-fault")
    assert (result.reason, result.returncode) == ("triple-fault", 121)


def test_loop_is_ended_by_the_time_limit() -> None:
    result = run("loop", timeout=0.1)
    assert (result.reason, result.returncode, result.registers["rip"]) == ("timeout", 124, 0x1000)
    assert not result.exits


def test_pio_storm_is_ended_by_the_exit_limit_and_by_the_time_limit() -> None:
    with Machine() as machine:
        machine.load(guests.path("pio-storm"))
        first = machine.run(timeout=PATIENCE, max_exits=500)
        second = machine.run(timeout=0.1)
    assert (first.reason, first.returncode, first.exits["io"].count) == ("max-exits", 120, 500)
    assert (second.reason, second.returncode) == ("timeout", 124)
    assert second.exits["io"].count > 500


def test_flood_is_ended_and_its_output_is_whole() -> None:
    result = run("flood", max_exits=300)
    assert result.reason == "max-exits"
    assert len(result.output) >= 300
    assert result.output == (LINE * (len(result.output) // len(LINE) + 1))[: len(result.output)]


def test_a_hole_holds_no_instruction() -> None:
    result = run("hole")
    assert (result.reason, result.returncode) == ("internal-error", 122)
    assert "0xd0000000" in result.detail


def test_mmio_to_nowhere_is_two_exits() -> None:
    result = run("mmio-nowhere")
    assert result.exits["mmio"].count == 2

"""The kernel of the course (examples/kernel): multiboot's for other loaders too, and whatever gcc makes of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import PROJECT

from minicontainer.kvm import Machine, Result

pytestmark = pytest.mark.needs("gcc")

SOURCES = PROJECT / "examples/kernel"
STRICT = ["-Werror", "-Wpedantic", "-Wconversion", "-Wshadow"]
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def compiled(*flags: str) -> Path:
        words = ["gcc", "@flags", *STRICT, *flags, "-T", "kernel.ld", "boot.S", "kernel.c"]
        subprocess.run([*words, "-o", str(tmp_path / "kernel.elf")], cwd=SOURCES, check=True)
        return tmp_path / "kernel.elf"

    return compiled


def boot(kernel: Path, append: str | None, *, mode: str | None = None, typed: bytes = b"") -> Result:
    with Machine("16M") as machine:
        machine.load(kernel, append=append, mode=mode)
        machine.start()
        machine.serial.input(typed)
        return machine.run(timeout=60)


@pytest.mark.needs("qemu")
def test_qemu_boots_it(build: Build) -> None:
    """The same file, by another loader of multiboot, on other devices."""
    words = ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    words += ["-m", "64", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4", "-kernel", str(build())]
    done = subprocess.run(
        [*words, "-append", "ticks=5 hz=50 ask=1 exit=42"],
        input="Ada\n",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2 * 42 + 1, done
    assert re.search(r"^loaded by qemu, command line: .*kernel\.elf ticks=5 hz=50 ask=1 exit=42$", done.stdout, re.M)
    assert "0x0 to 0x9fbff: memory\n" in done.stdout
    assert done.stdout.endswith(" KiB of memory\nticks, 50 a second: 1 2 3 4 5\nwho are you? Ada\nhello, Ada\n")


@pytest.mark.needs("kvm")
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3", "-Os"])
def test_it_is_the_same_however_it_is_compiled(build: Build, level: str) -> None:
    """Without a warning, and without a function of libgcc or of a C library."""
    result = boot(build(level), "ticks=3 ask=1 exit=7", typed=b"one\rtwo\r")
    assert (result.reason, result.returncode) == ("debug-exit", 7), result
    assert result.output.endswith(b"ticks, 100 a second: 1 2 3\nwho are you? one\ntwo\nhello, one\n")


@pytest.mark.needs("kvm")
@pytest.mark.parametrize(("parts", "lines"), [(1, 1), (2, 6), (3, 7), (4, 9)])
def test_each_part_adds_to_what_was_there(build: Build, parts: int, lines: int) -> None:
    said = boot(build(f"-DPARTS={parts}"), "ticks=1 ask=1", typed=b"Ada\n").output
    assert len(said.splitlines()) == lines
    assert boot(build(), "ticks=1 ask=1", typed=b"Ada\n").output.startswith(said)


@pytest.mark.needs("kvm")
def test_it_knows_whether_multiboot_loaded_it(build: Build) -> None:
    result = boot(build(), None, mode="protected")
    assert (result.reason, result.returncode) == ("debug-exit", 1), result
    assert result.output.endswith(b"\nnot loaded by multiboot\n")


@pytest.mark.needs("kvm")
@pytest.mark.parametrize(("asked", "rate"), [("hz=0", 19), ("hz=60", 60), ("hz=4000000000", 1000)])
def test_the_timer_has_a_rate_that_it_can_have(build: Build, asked: str, rate: int) -> None:
    result = boot(build(), f"ticks=2 {asked}")
    assert (result.reason, result.returncode) == ("debug-exit", 0), result
    assert result.output.endswith(f"ticks, {rate} a second: 1 2\n".encode())

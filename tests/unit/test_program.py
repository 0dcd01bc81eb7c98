"""Why a program could not be executed, from what the child saw of it: one line, and the exit code."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.container.program.failure import explain
from minicontainer.linux.elf import MACHINES, interpreter, machine

FILE, DIRECTORY, FIFO = 0o100755, 0o040755, 0o010755
HOST = os.uname().machine
OTHER = 183 if HOST == "x86_64" else 62


def elf(number: int, loader: bytes = b"", *, wide: bool = True, big: bool = False) -> bytes:
    """The first bytes of an ELF file, with one program header (elf(5))."""
    order = ">" if big else "<"
    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    at = 120 if wide else 84
    if wide:
        head = ident + struct.pack(order + "HHIQQQIHHHHHH", 2, number, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        table = struct.pack(order + "IIQQQQQQ", 3, 4, at, 0, 0, len(loader), 0, 1)
    else:
        head = ident + struct.pack(order + "HHIIIIIHHHHHH", 2, number, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        table = struct.pack(order + "IIIIIIII", 3, at, 0, 0, len(loader), 0, 4, 1)
    return head + (table if loader else bytes(len(table))) + loader + b"\0"


@pytest.mark.parametrize(
    ("seen", "said", "code"),
    [
        ((errno.ENOENT, None, 0, b""), "program x: not found in the container (in no directory of its PATH)", 127),
        ((errno.EACCES, "/d", DIRECTORY, b""), "program /d: is a directory", 126),
        ((errno.EACCES, "/f", FIFO, b""), "program /f: is not a regular file", 126),
        ((errno.EACCES, "/f", 0o100644, b""), "program /f: is not executable (chmod +x)", 126),
        ((errno.EACCES, "/f", FILE, b""), "program /f: permission denied", 126),
        (
            (errno.ENOENT, "/s", FILE, b"#!/no/sh -e\n"),
            "program /s: its interpreter /no/sh is missing in the container",
            127,
        ),
        ((errno.ENOENT, "/s", FILE, b"#! \t/no/sh\t-e"), "program /s: its interpreter /no/sh is missing", 127),
        ((errno.ENOENT, "/s", FILE, b"#!/bin/sh\r\n"), r"its interpreter '/bin/sh\r' is missing in the container", 127),
        ((errno.ENOENT, "/s", FILE, b"#!/bin/sh\r\n"), "(the script has the line ends of Windows)", 127),
        ((errno.ENOENT, "/s", FILE, b"#!\n"), "its interpreter '' is missing", 127),
        ((errno.ENOENT, "/e", FILE, elf(62, b"/lib64/ld.so")), "program /e: its loader /lib64/ld.so is missing", 127),
        ((errno.ENOENT, "/e", FILE, b"\x7fELF"), "program /e: its interpreter is missing in the container", 127),
        ((errno.ENOEXEC, "/e", FILE, elf(OTHER)), f"built for {MACHINES[OTHER]}, host is {HOST}", 126),
        ((errno.ENOEXEC, "/e", FILE, elf(0x4242)), f"built for machine {0x4242}, host is {HOST}", 126),
        ((errno.ENOEXEC, "/e", FILE, b"\x7fELF\x02\x01"), f"built for an unknown machine, host is {HOST}", 126),
        ((errno.ENOEXEC, "/e", FILE, b""), "program /e: is empty", 126),
        (
            (errno.ENOEXEC, "/e", FILE, b"echo hi\n"),
            "program /e: is no program (a script needs #! in its first line)",
            126,
        ),
        ((errno.E2BIG, "/e", FILE, b""), "program x: argument list too long", 126),
        ((errno.ETXTBSY, "/e", FILE, b""), "program /e: text file busy", 126),
    ],
)
def test_what_is_said(seen: tuple[int, str | None, int, bytes], said: str, code: int) -> None:
    error = explain("x", *seen)
    assert said in str(error)
    assert error.exit_code == code
    assert str(error).isprintable()


def test_a_program_given_with_its_path_is_not_looked_for() -> None:
    assert str(explain("/bin/x", errno.ENOENT, None, 0, b"")) == "program /bin/x: not found in the container"


def test_a_damaged_program_of_this_machine() -> None:
    own = next(number for number, name in MACHINES.items() if name == HOST)
    assert "is a damaged ELF file" in str(explain("x", errno.ENOEXEC, "/e", FILE, elf(own)))


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("big", [True, False])
def test_the_loader_of_any_elf_file(wide: bool, big: bool) -> None:
    head = elf(20, b"/lib/ld.so.1", wide=wide, big=big)
    assert interpreter(head) == "/lib/ld.so.1"
    assert machine(head) == "ppc"
    assert interpreter(elf(20, wide=wide, big=big)) is None


def test_the_loader_of_a_real_program() -> None:
    with open("/proc/self/exe", "rb") as f:
        head = f.read(1024)
    assert machine(head) == HOST
    assert (interpreter(head) or "/").startswith("/")


@given(st.one_of(st.binary(max_size=1024), st.binary(max_size=1000).map(lambda tail: b"\x7fELF" + tail)))
def test_any_file_can_be_explained(head: bytes) -> None:
    for number in (errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.EPERM):
        assert str(explain("x", number, "/x", FILE, head)).isprintable()
    interpreter(head)

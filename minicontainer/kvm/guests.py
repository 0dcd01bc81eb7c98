"""The guests of this package. The sources (csrc/guests) explain what each demonstrates.

with Machine() as m:
    m.load("hello")
    print(m.run(timeout=5).output)
"""

from __future__ import annotations

import os

from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.native import LIBEXEC

DIRECTORY = os.path.join(LIBEXEC, "guests")

# name -> its description, one line. setup.py builds the guests.
GUESTS = {
    "hello": "prints a line; real mode",
    "hello32": "prints a line; protected mode",
    "hello64": "prints a line; long mode",
    "bootsector": "prints a line through the BIOS (INT 10h)",
    "multiboot": "prints its command line and modules (--append, --initrd)",
    "echo": "sends back what it receives by the serial port, with interrupts; Ctrl-D ends it",
    "timer": "counts ten ticks of the timer, asleep between them",
    "sieve": "counts the primes below a million, in C; long mode at CPL 3",
    "smp": "starts a second processor; each prints its APIC id",
    "memory": "writes and verifies a word in every page, and prints how much memory there is below 4 GiB",
    "exits": "for benchmarks: writes N times to a port (N is read from port 0x510, the port from 0x514)",
    "triple-fault": "misbehaves: an exception that cannot be delivered",
    "loop": "misbehaves: never leaves the processor",
    "pio-storm": "misbehaves: writes to a port without a device, for ever",
    "flood": "misbehaves: prints for ever",
    "hole": "misbehaves: jumps to an address without memory",
    "mmio-nowhere": "misbehaves: writes and reads at an address with neither memory nor a device",
    "self-modifying": "misbehaves: changes its own code, and prints which version ran",
}


def names() -> list[str]:
    """The names of all guests."""
    return list(GUESTS)


def path(name: str) -> str:
    """The absolute path of a guest's file. SpecError: there is no such guest; UnsupportedError: it is not built."""
    if name not in GUESTS:
        raise SpecError("guest", name, "is no guest of this package", ", ".join(GUESTS))
    file = os.path.join(DIRECTORY, name)
    if not os.path.isfile(file):
        raise UnsupportedError("guest", name, f"there is no {file}", "make build, on x86_64")
    return file


def find(kernel: str) -> str:
    """The file of the guest with this name; any other string is returned as a path."""
    return path(kernel) if kernel in GUESTS else kernel


def suggestion(path: str) -> str:
    """A hint for a path without a file: the guest with a similar name; "" if there is none."""
    from difflib import get_close_matches

    close = [] if os.sep in path else get_close_matches(path, GUESTS, 1, 0.75)
    return f"did you mean the guest {close[0]}? kvm-boot --list" if close else ""

"""The report of ``kvm-boot`` after the machine's end: on stderr, since stdout is the serial port."""

from __future__ import annotations

import os
import sys

from minicontainer.cli.options import write_json
from minicontainer.errors import sentence
from minicontainer.kvm.result import CONTROLS, REGISTERS, SEGMENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minicontainer.kvm.debug.explain import Recorder
    from minicontainer.kvm.machine import Machine
    from minicontainer.kvm.result import ExitCount, Result

TEXTS = {
    "max-exits": "the limit of exits is reached",
    "triple-fault": "the guest has caused a triple fault",
    "internal-error": "KVM cannot go on",
    "fail-entry": "the processor refuses the guest's state",
    "timeout": "the time limit is reached",
    "interrupted": "interrupted",
}
OPTIONS = {"timeout": ("--timeout", "timeout"), "max-exits": ("--max-exits", "max_exits")}


def write(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr)


def end(kernel: str, result: Result, options: dict[str, Any]) -> None:
    """Print why the machine ended, if the exit code does not show it."""
    if result.reason not in TEXTS:
        return
    option, name = OPTIONS.get(result.reason, (None, None))
    what, value = (option, options[name]) if option and name else ("kernel", os.path.basename(kernel))
    detail = f", {result.detail}" if result.detail else ""
    write(f"minicontainer: {sentence(what, value, TEXTS[result.reason] + detail)}")


def explain(recorder: Recorder, destination: str | None) -> None:
    """The timeline, to stderr or as JSON."""
    if destination:
        write_json(destination, recorder.timeline.as_dict())
    else:
        write(recorder.timeline.format())
        write("")
        write(recorder.summary())


def stats(result: Result) -> None:
    """Exits by reason and by port."""
    rows = [(name, count) for name, count in result.exits.items()]
    rows += [(f"port {port:#x}", count) for port, count in sorted(result.ports.items())]
    write(f"{'exits':16} {'count':>10} {'total us':>12} {'mean us':>9}")
    for name, count in rows:
        write(_row(name, count))
    write(f"ran {result.walltime * 1e3:.3f} ms, {result.guest_time * 1e3:.3f} ms of it in KVM_RUN")


def _row(name: str, count: ExitCount) -> str:
    return f"{name:16} {count.count:10} {count.seconds * 1e6:12.1f} {count.mean * 1e6:9.2f}"


def registers(result: Result) -> None:
    """All registers of the processor that ended the run."""
    for names in (REGISTERS, CONTROLS, SEGMENTS):
        for row in _by_four(names):
            write("  ".join(f"{name:>6} {result.registers[name]:016x}" for name in row))


def _by_four(names: list[str]) -> Iterable[list[str]]:
    return (names[i : i + 4] for i in range(0, len(names), 4))


def memory(machine: Machine, address: int, length: int) -> None:
    """Memory in the format of hexdump -C."""
    data = machine.memory.read(address, length)
    for at in range(0, length, 16):
        part = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        write(f"{address + at:08x}  {part.hex(' '):47}  |{text}|")

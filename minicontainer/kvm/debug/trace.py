"""Traces exits: the lines of ``--trace``, and the events of ``--explain``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minicontainer.kvm.drive import Processor
from minicontainer.kvm.exits import NAMES, IoExit, typed
from minicontainer.native import ffi, lib

BYTES_SHOWN = 16  # of an exit's data


class Exit(NamedTuple):
    """One exit, after it was handled. Times in nanoseconds of CLOCK_MONOTONIC: KVM_RUN's call and return."""

    number: int
    vcpu: int
    reason: str
    rip: int
    address: int | None
    size: int
    items: int
    write: bool
    data: bytes
    entered: int
    left: int
    detail: str

    def access(self) -> str:
        """The access of an I/O or MMIO exit: ``out 0x3f8 1 byte 48 'H'``; the details of any other exit."""
        if self.address is None:
            return self.detail
        io = self.reason == "io"
        verb = ("out" if self.write else "in") if io else ("write" if self.write else "read")
        amount = f"{self.items} x {self.size} bytes" if self.items > 1 else f"{self.size} byte{'s'[: self.size > 1]}"
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in self.data[:BYTES_SHOWN])
        more = "..." if len(self.data) > BYTES_SHOWN else ""
        return f"{verb} {self.address:#x} {amount}: {self.data[:BYTES_SHOWN].hex(' ')}{more} {text!r}"


class Tracer:
    """A ``tracer`` for Machine.hooks: calls each of its observers with each Exit."""

    def __init__(self, observers: Sequence[Callable[[Exit], None]]) -> None:
        self._observers = observers
        self._number = 0
        self._lock = threading.Lock()  # processors run in several threads

    def __call__(self, processor: Processor, e: Any) -> None:
        """Called by the processor's thread, after the exit was handled or ended the run."""
        with self._lock:
            self._number += 1
            exit_ = self._exit(processor, e)
            for observe in self._observers:
                observe(exit_)

    def _exit(self, processor: Processor, e: Any) -> Exit:
        access = e.reason in (lib.KVM_EXIT_IO, lib.KVM_EXIT_MMIO)
        synced = processor.vcpu.synced
        return Exit(
            number=self._number,
            vcpu=processor.number,
            reason=NAMES.get(e.reason, f"exit-{e.reason}"),
            rip=(synced.regs if synced is not None else processor.vcpu.get_regs()).rip,
            address=e.address if access else None,
            size=e.size,
            items=e.count,
            write=bool(e.write),
            data=bytes(ffi.buffer(ffi.cast("char *", e.data), e.size * e.count)) if access else b"",
            entered=processor.control.entered_ns,
            left=processor.control.left_ns,
            detail="" if access else _detail(e),
        )


def _detail(e: Any) -> str:
    exit_ = typed(e)
    assert not isinstance(exit_, IoExit)
    values = exit_._asdict()
    return ", ".join(f"{k} {v:#x}" if isinstance(v, int) else f"{k} {v}" for k, v in values.items())


def line(exit_: Exit, start: int) -> str:
    """One line of a trace; its times are relative to ``start``, in nanoseconds."""
    at, took = (exit_.left - start) / 1000, (exit_.left - exit_.entered) / 1000
    return (
        f"{exit_.number:6} cpu{exit_.vcpu} {at:10.1f} us {took:8.1f} in guest  rip {exit_.rip:#x}"
        f"  {exit_.reason} {exit_.access()}"
    ).rstrip()

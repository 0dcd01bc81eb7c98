"""Exits of a guest as typed values (Linux Documentation/virt/kvm/api.rst, "The kvm_run structure")."""

from __future__ import annotations

from minicontainer.native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
    from typing import Any, NamedTuple
else:
    from minicontainer.records import NamedTuple, dataclass

NAMES = {  # KVM_EXIT_* -> its name in results
    getattr(lib, f"KVM_EXIT_{name}"): name.lower().replace("_", "-")
    for name in (
        "UNKNOWN EXCEPTION IO HYPERCALL DEBUG HLT MMIO IRQ_WINDOW_OPEN SHUTDOWN FAIL_ENTRY INTR SET_TPR TPR_ACCESS NMI"
        " INTERNAL_ERROR DIRTY_RING_FULL SYSTEM_EVENT IOAPIC_EOI X86_RDMSR X86_WRMSR"
    ).split()
}
SUBERRORS = {
    lib.KVM_INTERNAL_ERROR_EMULATION: "an instruction that KVM cannot emulate",
    lib.KVM_INTERNAL_ERROR_SIMUL_EX: "exceptions at the same time",
    lib.KVM_INTERNAL_ERROR_DELIVERY_EV: "an exit while an event was delivered",
    lib.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: "an exit that KVM does not know",
}


@dataclass(frozen=True)
class IoExit:
    """KVM_EXIT_IO: ``count`` items of ``size`` bytes (rep outsb: many) to or from a port. ``data``: of a write, bytes;
    of a read, a writable memoryview that the caller fills before the next run."""

    port: int
    size: int
    count: int
    write: bool
    data: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return IoExit, (self.port, self.size, self.count, self.write, bytes(self.data))


class MmioExit(NamedTuple):
    """KVM_EXIT_MMIO: an access to an address without memory. ``data`` as in IoExit."""

    address: int
    size: int
    write: bool
    data: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return MmioExit, (self.address, self.size, self.write, bytes(self.data))


class HltExit(NamedTuple):
    """KVM_EXIT_HLT: the processor waits for an interrupt. Only without an in-kernel irqchip."""


class ShutdownExit(NamedTuple):
    """KVM_EXIT_SHUTDOWN: a triple fault; a PC would reset."""


class DebugExit(NamedTuple):
    """KVM_EXIT_DEBUG: a single step or a breakpoint of set_guest_debug. ``exception``: 1 (#DB) or 3 (#BP)."""

    exception: int
    rip: int
    dr6: int
    dr7: int


class InternalErrorExit(NamedTuple):
    """KVM_EXIT_INTERNAL_ERROR. The meaning of ``words`` depends on ``suberror``: after an emulation failure they
    contain the instruction's bytes."""

    suberror: int
    words: tuple[int, ...]

    def __str__(self) -> str:
        text = SUBERRORS.get(self.suberror, f"suberror {self.suberror}")
        return text + (f", its bytes {self.instruction.hex(' ')}" if self.instruction else "")

    @property
    def instruction(self) -> bytes:
        """The bytes at rip, if KVM reports them (struct kvm_run, emulation_failure: flags, insn_size, insn_bytes)."""
        if self.suberror != lib.KVM_INTERNAL_ERROR_EMULATION or len(self.words) < 3 or not self.words[0] & 1:
            return b""
        raw = b"".join(word.to_bytes(8, "little") for word in self.words[1:])
        return raw[1 : 1 + min(raw[0], 15)]


class FailEntryExit(NamedTuple):
    """KVM_EXIT_FAIL_ENTRY: the host's processor refused the guest's state; the reason is a code of VMX or SVM."""

    hardware_entry_failure_reason: int


class SystemEventExit(NamedTuple):
    """KVM_EXIT_SYSTEM_EVENT: shutdown (1), reset (2), crash (3)."""

    type: int
    words: tuple[int, ...]


class HypercallExit(NamedTuple):
    """KVM_EXIT_HYPERCALL."""

    number: int
    args: tuple[int, ...]


class MsrExit(NamedTuple):
    """KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR (KVM_CAP_X86_USER_SPACE_MSR)."""

    msr: int
    write: bool
    value: int


class InterruptedExit(NamedTuple):
    """KVM_RUN returned for a signal, or because immediate_exit was set."""


class UnknownExit(NamedTuple):
    """KVM_EXIT_UNKNOWN, and every reason that has no class here."""

    reason: int
    words: tuple[int, ...]


Exit = (
    IoExit | MmioExit | HltExit | ShutdownExit | DebugExit | InternalErrorExit | FailEntryExit | SystemEventExit
    | HypercallExit | MsrExit | InterruptedExit | UnknownExit
)  # fmt: skip


def _words(e: Any) -> tuple[int, ...]:
    return tuple(ffi.unpack(e.words, e.nwords))


def _data(e: Any, pages: memoryview) -> Any:
    data = pages[e.offset : e.offset + e.size * e.count]
    return bytes(data) if e.write else data


TYPES: dict[int, Callable[[Any, memoryview], Exit]] = {
    lib.KVM_EXIT_IO: lambda e, pages: IoExit(e.address, e.size, e.count, bool(e.write), _data(e, pages)),
    lib.KVM_EXIT_MMIO: lambda e, pages: MmioExit(e.address, e.size, bool(e.write), _data(e, pages)),
    lib.KVM_EXIT_HLT: lambda e, _: HltExit(),
    lib.KVM_EXIT_SHUTDOWN: lambda e, _: ShutdownExit(),
    lib.KVM_EXIT_DEBUG: lambda e, _: DebugExit(*_words(e)),
    lib.KVM_EXIT_INTERNAL_ERROR: lambda e, _: InternalErrorExit(e.flags, _words(e)),
    lib.KVM_EXIT_FAIL_ENTRY: lambda e, _: FailEntryExit(e.words[0]),
    lib.KVM_EXIT_SYSTEM_EVENT: lambda e, _: SystemEventExit(e.flags, _words(e)),
    lib.KVM_EXIT_HYPERCALL: lambda e, _: HypercallExit(e.address, _words(e)),
    lib.KVM_EXIT_X86_RDMSR: lambda e, _: MsrExit(e.address, False, 0),
    lib.KVM_EXIT_X86_WRMSR: lambda e, _: MsrExit(e.address, True, e.words[0]),
    lib.KVM_EXIT_INTR: lambda e, _: InterruptedExit(),
}
NO_PAGES = memoryview(b"")


def typed(e: Any, pages: memoryview = NO_PAGES) -> Exit:
    """A ``struct mc_exit`` as a typed exit. ``pages``: those of struct kvm_run, of which it was decoded; an access to a
    port or to memory has its data there."""
    make = TYPES.get(e.reason)
    return make(e, pages) if make is not None else UnknownExit(e.reason, _words(e))


class GuestEnd(Exception):
    """Raised by a device's handler: ends the machine. ``reason`` as in ``Result.reason``; ``code``: the exit code, if
    it is not the reason's."""

    def __init__(self, reason: str, code: int = 0) -> None:
        self.reason, self.code = reason, code

"""The result of a machine's run: the reason of its end, its exits, output and registers."""

from __future__ import annotations

import struct

from minicontainer.kvm.exits import NAMES
from minicontainer.kvm.registers import Registers
from minicontainer.native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
    from functools import cached_property
    from typing import Any, NamedTuple, TypeVar

    Key = TypeVar("Key")
else:
    from minicontainer.light import cached_property
    from minicontainer.records import NamedTuple, dataclass

# reason -> exit code, with docker's conventions. A guest's own code comes from the debug-exit port.
CODES = {
    "halt": 0,
    "poweroff": 0,
    "reset": 0,
    "stopped": 0,
    "debug-exit": 0,  # or the guest's own code
    "max-exits": 120,
    "triple-fault": 121,
    "internal-error": 122,
    "fail-entry": 123,
    "timeout": 124,
    "interrupted": 130,
}
REGISTERS = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
CONTROLS = "cr0 cr2 cr3 cr4 efer".split()
SEGMENTS = "cs ds es fs gs ss".split()


@dataclass(frozen=True)
class ExitCount:
    """The number of exits of one kind, and the seconds that the host spent on them, until the next entry."""

    count: int
    seconds: float

    @property
    def mean(self) -> float:
        """Mean seconds of one exit."""
        return self.seconds / self.count if self.count else 0.0


class Outcome(NamedTuple):
    """Why a machine ended: one of CODES, the processor, the guest's exit code, and details as text."""

    reason: str
    vcpu: int = 0
    code: int = 0
    detail: str = ""

    def told(self, *, guessed: bool) -> str:
        """The details; with the likely reason where something was run that may be no code (``guessed``)."""
        if not guessed or self.reason not in ("triple-fault", "internal-error", "fail-entry"):
            return self.detail
        return "; ".join(filter(None, (self.detail, "its format was not recognised: it was entered as 16-bit code")))


@dataclass(frozen=True)
class Result:
    """The result of ``Machine.run``.

    reason     one of CODES; ``returncode``: its exit code, or the guest's own (debug-exit)
    detail     the details of an error that ended the machine, on one line
    output     the guest's output on the serial port, unless that goes to a descriptor
    state      struct kvm_regs and struct kvm_sregs of the processor ``vcpu``, which ended the machine
    tallies    the counters of each processor: struct mc_vcpu (csrc/kvm/vcpu.h) and its table of ports (may be empty)
    walltime, guest_time  seconds of ``run``, and seconds in KVM_RUN (sum of all processors)"""

    reason: str
    returncode: int
    detail: str
    vcpu: int
    output: bytes
    output_lost: int
    state: tuple[bytes, bytes]
    tallies: list[tuple[bytes, bytes]]
    walltime: float
    guest_time: float

    def __repr__(self) -> str:
        output = self.output if len(self.output) <= 60 else self.output[:60] + b"..."
        detail = f", {self.detail}" if self.detail else ""
        exits = ", ".join(f"{exit_.count} {name}" for name, exit_ in self.exits.items())
        return (
            f"<minicontainer.kvm.Result: {self.reason} ({self.returncode}){detail}; exits: {exits or 'none'};"
            f" {self.walltime:.6f} s; output ({len(self.output)} bytes): {output!r}>"
        )

    @cached_property
    def exits(self) -> dict[str, ExitCount]:
        """Exits by reason: "io", "mmio", "hlt" ..."""
        counts: dict[str, ExitCount] = {}
        for raw, _ in self.tallies:
            vcpu = ffi.from_buffer("struct mc_vcpu[1]", raw)  # [1]: not less than that
            for reason, count in enumerate(vcpu[0].counts):
                if count:
                    _add(counts, NAMES.get(reason, f"exit-{reason}"), count, vcpu[0].host_ns[reason])
        return counts

    @cached_property
    def ports(self) -> dict[int, ExitCount]:
        """Exits by port; empty without ``Machine(want_ports=True)``."""
        counts: dict[int, ExitCount] = {}
        for _, raw in self.tallies:
            for port, (count, ns) in enumerate(struct.iter_unpack("=QQ", raw)):
                if count:
                    _add(counts, port, count, ns)
        return counts

    @cached_property
    def registers(self) -> Registers:
        """General registers, control registers and selectors of ``state``, by name."""
        regs = ffi.from_buffer("struct kvm_regs[1]", self.state[0])  # [1]: not less than that
        sregs = ffi.from_buffer("struct kvm_sregs[1]", self.state[1])
        values = {name: getattr(regs[0], name) for name in REGISTERS}
        values |= {name: getattr(sregs[0], name) for name in CONTROLS}
        return Registers(values | {name: getattr(sregs[0], name).selector for name in SEGMENTS})

    def as_dict(self) -> dict[str, Any]:
        """As data for JSON: times in seconds, the output as text."""
        return {
            "reason": self.reason,
            "returncode": self.returncode,
            "detail": self.detail,
            "vcpu": self.vcpu,
            "exits": {name: dict(vars(e)) for name, e in self.exits.items()},
            "ports": {hex(port): dict(vars(e)) for port, e in self.ports.items()},
            "output": self.output.decode("utf-8", "replace"),
            "output_lost": self.output_lost,
            "registers": {name: hex(value) for name, value in self.registers.items()},
            "walltime": self.walltime,
            "guest_time": self.guest_time,
        }


def _add(counts: dict[Key, ExitCount], key: Key, count: int, ns: int) -> None:
    before = counts.get(key, ExitCount(0, 0.0))
    counts[key] = ExitCount(before.count + count, before.seconds + ns / 1e9)

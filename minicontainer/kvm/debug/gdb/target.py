"""Registers, memory and breakpoints of a stopped machine, for gdb."""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.kvm.debug import linear
from minicontainer.kvm.debug.gdb.description import target_xml
from minicontainer.kvm.debug.gdb.registers import State, layout
from minicontainer.kvm.machine import Machine
from minicontainer.kvm.vcpu import Vcpu
from minicontainer.kvm.x86 import EFER_LMA
from minicontainer.native import lib

WIDE_KINDS = ("elf64", "bzimage")  # kernels for long mode, even where they are entered in protected mode (PVH)
MP_STATES = {
    lib.KVM_MP_STATE_RUNNABLE: "running",
    lib.KVM_MP_STATE_HALTED: "halted",
    lib.KVM_MP_STATE_UNINITIALIZED: "not started",
}


class MachineTarget:
    """Implements ``commands.Target``.

    The register set is fixed while gdb is attached: x86-64 if the guest is, or will be, in long mode."""

    def __init__(self, machine: Machine) -> None:
        self.breakpoints: dict[int, set[str]] = {}  # linear address -> kinds
        self._machine = machine
        wide = self._is_wide()
        self._registers = layout(wide)
        self._description = target_xml(self._registers, wide)

    def _is_wide(self) -> bool:
        entry = self._machine.entry
        return bool((entry and entry.kind in WIDE_KINDS) or self._vcpu(0).get_sregs().efer & EFER_LMA)

    def _vcpu(self, number: int) -> Vcpu:
        return self._machine.processors[number].vcpu

    def processors(self) -> Sequence[int]:
        """The numbers of the processors."""
        return range(len(self._machine.processors))

    def describe(self, number: int) -> str:
        """The state of a processor as text."""
        return f"processor {number}, {MP_STATES.get(self._vcpu(number).get_mp_state(), 'waiting')}"

    def description(self) -> bytes:
        """target.xml."""
        return self._description

    # ---- registers

    def read_registers(self, number: int) -> bytes:
        """All registers, concatenated."""
        state = State(self._vcpu(number))
        return b"".join(map(state.get, self._registers))

    def write_registers(self, number: int, raw: bytes) -> None:
        """Sets all registers, or the first ones: the others are unchanged."""
        state, at = State(self._vcpu(number)), 0
        for register in self._registers:
            size = register.bits // 8
            if at + size <= len(raw):
                state.set(register, raw[at : at + size])
            at += size
        state.store()

    def read_register(self, number: int, register: int) -> bytes:
        """One register, by its index in the description."""
        return State(self._vcpu(number)).get(self._registers[register])

    def write_register(self, number: int, register: int, raw: bytes) -> None:
        """Sets one register."""
        described = self._registers[register]
        if len(raw) != described.bits // 8:
            raise ValueError(f"{described.name}: {len(raw)} bytes")
        state = State(self._vcpu(number))
        state.set(described, raw)
        state.store()

    def jump(self, number: int, address: int) -> None:
        """Sets rip."""
        index = next(i for i, register in enumerate(self._registers) if register.where == "rip")
        size = self._registers[index].bits // 8
        self.write_register(number, index, address.to_bytes(8, "little")[:size])

    def rip(self, number: int) -> int:
        """rip as a linear address."""
        return State(self._vcpu(number)).rip

    # ---- memory and breakpoints

    def read(self, number: int, address: int, length: int) -> bytes:
        """Memory at a linear address of this processor, up to the first byte that is not mapped."""
        return linear.read(self._vcpu(number), self._machine.memory, address, length)

    def write(self, number: int, address: int, data: bytes) -> None:
        """Writes memory at a linear address."""
        linear.write(self._vcpu(number), self._machine.memory, address, data)

    def add_breakpoint(self, address: int, kind: str) -> None:
        """Sets a breakpoint at a linear address, for every processor."""
        self.breakpoints.setdefault(address, set()).add(kind)

    def remove_breakpoint(self, address: int, kind: str) -> None:
        """Removes a breakpoint; no error if there is none."""
        kinds = self.breakpoints.get(address, set())
        kinds.discard(kind)
        if not kinds:
            self.breakpoints.pop(address, None)

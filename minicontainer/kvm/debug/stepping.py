"""Single-steps the first processor of a machine.

    Stepper(machine, lambda processor: print(hex(processor.vcpu.get_regs().rip)))
    machine.run()

HLT is not stepped: where KVM emulates the guest, the trap after HLT would be lost or delayed. Interrupts are blocked
between steps, otherwise the guest would find the step's trap flag on its stack. The handler of an interrupt that ends a
HLT is not stepped.
"""

from __future__ import annotations

from collections.abc import Callable

from minicontainer.kvm.debug import linear
from minicontainer.kvm.drive import Processor
from minicontainer.kvm.exits import DebugExit
from minicontainer.kvm.machine import Machine
from minicontainer.kvm.memory import GuestMemoryError

HLT = b"\xf4"


class Stepper:
    """Calls ``callback`` before each instruction of the first processor, at most ``limit`` times. ``count``: the number
    of calls. It starts the machine, which has to be loaded and must not run yet."""

    def __init__(self, machine: Machine, callback: Callable[[Processor], None], limit: int | None = None) -> None:
        self._machine, self._callback, self._limit = machine, callback, limit
        self.count = 0
        machine.hooks.on_debug, machine.hooks.on_access = self._on_debug, self._on_access
        machine.start()
        machine.board.trace = 1  # no trap follows an access that KVM emulates: on_access replaces it
        first = machine.processors[0]
        self._last_rip = self._rip(first)
        self._before_instruction(first)

    def _on_debug(self, processor: Processor, exit_: DebugExit) -> None:
        self._report(processor, exit_.rip)

    def _on_access(self, processor: Processor) -> None:
        if processor.number == 0 and (rip := self._rip(processor)) != self._last_rip:
            self._report(processor, rip)

    def _report(self, processor: Processor, rip: int) -> None:
        self._last_rip = rip
        self._before_instruction(processor)

    def _before_instruction(self, processor: Processor) -> None:
        if self._limit is not None and self.count >= self._limit:
            self._machine.hooks.on_debug = self._machine.hooks.on_access = None
            self._machine.board.trace = self._machine.hooks.tracer is not None
            processor.vcpu.set_guest_debug()
            return
        self.count += 1
        self._callback(processor)
        if not self._is_halt(processor):
            processor.vcpu.set_guest_debug(single_step=True, block_irq=True)
        else:  # HLT ends the machine, or an interrupt ends the HLT
            processor.vcpu.set_guest_debug(breakpoints=[self._last_rip + 1] if self._machine.irqchip else ())

    def _rip(self, processor: Processor) -> int:
        return int(processor.vcpu.get_regs().rip) + linear.code_base(processor.vcpu.get_sregs())

    def _is_halt(self, processor: Processor) -> bool:
        try:
            return linear.read(processor.vcpu, self._machine.memory, self._last_rip, 1) == HLT
        except GuestMemoryError:
            return False

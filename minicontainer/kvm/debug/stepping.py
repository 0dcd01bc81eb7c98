"""Follows a machine's first processor instruction by instruction.

    Stepper(machine, lambda processor: print(hex(processor.vcpu.get_regs().rip)))
    machine.run()

HLT is not stepped: its trap would be lost, or come late, where KVM interprets the guest. No interrupt is let in between
steps, or the guest would find the trap flag of the step on its stack; one that ends a HLT is dealt with unseen.
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
    """Calls ``tell`` before each instruction of the first processor; ``most`` times, or to the end. ``count``: how
    often it did. The machine, which has been loaded and does not run yet, is started."""

    def __init__(self, machine: Machine, tell: Callable[[Processor], None], most: int | None = None) -> None:
        self._machine, self._tell, self._most = machine, tell, most
        self.count = 0
        machine.hooks.on_debug, machine.hooks.on_access = self._on_debug, self._on_access
        machine.start()
        machine.board.trace = 1  # KVM sets no trap behind an access that it emulates: on_access is told instead
        first = machine.processors[0]
        self._told = self._rip(first)
        self._show(first)

    def _on_debug(self, processor: Processor, exit_: DebugExit) -> None:
        self._arrived(processor, exit_.rip)

    def _on_access(self, processor: Processor) -> None:
        if processor.number == 0 and (rip := self._rip(processor)) != self._told:
            self._arrived(processor, rip)

    def _arrived(self, processor: Processor, rip: int) -> None:
        self._told = rip
        self._show(processor)

    def _show(self, processor: Processor) -> None:
        if self._most is not None and self.count >= self._most:
            self._machine.hooks.on_debug = self._machine.hooks.on_access = None
            self._machine.board.trace = self._machine.hooks.tracer is not None
            processor.vcpu.set_guest_debug()
            return
        self.count += 1
        self._tell(processor)
        if not self._is_halt(processor):
            processor.vcpu.set_guest_debug(single_step=True, block_irq=True)
        else:  # it ends the machine, or an interrupt ends it
            processor.vcpu.set_guest_debug(breakpoints=[self._told + 1] if self._machine.irqchip else ())

    def _rip(self, processor: Processor) -> int:
        return int(processor.vcpu.get_regs().rip) + linear.code_base(processor.vcpu.get_sregs())

    def _is_halt(self, processor: Processor) -> bool:
        try:
            return linear.read(processor.vcpu, self._machine.memory, self._told, 1) == HLT
        except GuestMemoryError:
            return False

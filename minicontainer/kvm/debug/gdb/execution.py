"""Lets a machine's processors go on and stops them again: steps, breakpoints, interrupts. All stop when one does.

Theory of operation. Breakpoints are the processor's own (debug registers) where this host delivers them and there are
no more than four; else a processor that continues is single-stepped, and its rip compared with every breakpoint: slow,
and right. int3 in the guest's code is not used: KVM's software breakpoints do not work on every host (nested, or in
software), and the guest could see them. A breakpoint at the very place where a processor was reported to have stopped
is stepped over; another processor that has come to one meanwhile is reported when the machine is next to go on.

No interrupt is let in between steps: it would leave the trap flag of the step in the guest's stack. A processor that is
stepped on and on because there are more than four breakpoints gets its interrupts when it halts. Where there are no
hardware breakpoints they are let in, so that everything can be stepped through; their handlers may run unseen then.
"""

from __future__ import annotations

import os
import threading
from queue import Empty, SimpleQueue

from minicontainer.errors import UnsupportedError
from minicontainer.kvm.debug.gate import Gate
from minicontainer.kvm.debug.gdb.commands import CONTINUE, SIGINT, SIGTRAP, STEP, Stop
from minicontainer.kvm.debug.gdb.probe import has_breakpoints, has_steps
from minicontainer.kvm.debug.gdb.target import MachineTarget
from minicontainer.kvm.drive import Processor
from minicontainer.kvm.exits import DebugExit
from minicontainer.kvm.machine import Machine
from minicontainer.kvm.memory import GuestMemoryError

REGISTERS = 4  # breakpoints that a processor has of its own
HLT = b"\xf4"


class Execution:
    """Runs ``machine`` for one client at a time. ``wake`` is a descriptor that becomes readable when there is news."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hardware = _check(machine)
        self._gate = Gate(machine.processors, machine.board)
        self._stops: SimpleQueue[Stop] = SimpleQueue()
        self._doing: dict[int, str] = {}
        self._stepped: dict[int, int] = {}  # processor -> rip from which it is to go one instruction
        self._reported: dict[int, int] = {}  # processor -> rip of which the client knows
        self.target = MachineTarget(machine)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.Lock()
        machine.hooks.gate = self._gate
        machine.hooks.on_debug, machine.hooks.on_access = self._on_debug, self._on_access

    # ---- for the client's thread

    def attach(self) -> Stop:
        """Stops the machine for a new client."""
        self._gate.settle()
        self.target = MachineTarget(self._machine)
        return self.stopped(SIGTRAP)

    def has_stop(self) -> bool:
        """Whether one of them has something to tell."""
        return not self._stops.empty()

    def stopped(self, signal: int = SIGINT) -> Stop:
        """Stops all: what one of them had to tell, or else that they were stopped from outside."""
        self._gate.settle()
        stop = self._first_stop() or Stop(0, signal)
        self._reported = {stop.number: self.target.rip(stop.number)}
        return stop

    def _first_stop(self) -> Stop | None:
        """The first of what was told; the rest of it is still to be seen from where the processors are."""
        first = None
        while True:
            try:
                stop = self._stops.get_nowait()
            except Empty:
                return first
            first = first or stop

    def resume(self, actions: dict[int, str]) -> None:
        """Lets these processors go on. There is news when the first of them stops."""
        for number, action in actions.items():
            rip = self.target.rip(number)
            kind = self._kind(rip)
            if kind and action == CONTINUE and self._reported.get(number) != rip:
                self._stops.put(Stop(number, SIGTRAP, kind))
                self.tell()
                return
        self._stepped.clear()
        for number, action in actions.items():
            self._arm(number, action)
        self._machine.board.trace = bool(self._stepped) or self._machine.hooks.tracer is not None
        self._reported.clear()
        self._gate.release(actions)

    def detach(self) -> None:
        """Lets all go on without a client."""
        self._gate.settle()
        self._first_stop()
        self.target.breakpoints.clear()
        self._stepped.clear()
        for processor in self._machine.processors:
            processor.vcpu.set_guest_debug()
        self._machine.board.trace = self._machine.hooks.tracer is not None
        self._gate.release()

    def kill(self) -> None:
        """Ends the machine."""
        self._gate.end()

    def close(self) -> None:
        """Takes itself out of the machine."""
        self._gate.release()
        self._machine.hooks.gate = None
        self._machine.hooks.on_debug = self._machine.hooks.on_access = None
        with self._wake_lock:
            os.close(self.wake)
            self.wake = -1

    def tell(self) -> None:
        """There is news; from any thread."""
        with self._wake_lock:
            if self.wake >= 0:
                os.eventfd_write(self.wake, 1)

    def heard(self) -> None:
        """It has been heard that there is news."""
        os.eventfd_read(self.wake)

    # ---- breakpoints

    def _kind(self, address: int) -> str:
        """Of the breakpoint there; "" where there is none."""
        return next(iter(self.target.breakpoints.get(address, ())), "")

    def _arm(self, number: int, action: str) -> None:
        self._doing[number] = action
        processor = self._machine.processors[number]
        if action == STEP or self._kind(self.target.rip(number)):
            self._step(processor, block_irq=True)
        else:
            self._go_on(processor)

    def _go_on(self, processor: Processor) -> None:
        """Continues, from a place without a breakpoint or beyond it."""
        self._stepped.pop(processor.number, None)
        addresses = list(self.target.breakpoints)
        if not addresses or (self._hardware and len(addresses) <= REGISTERS):
            processor.vcpu.set_guest_debug(breakpoints=addresses)
        else:
            self._step(processor, block_irq=self._hardware)

    def _step(self, processor: Processor, *, block_irq: bool) -> None:
        """One instruction; HLT's is over when an interrupt has been dealt with. Where KVM interprets the guest, a trap
        just behind HLT would make it halt later, at a wrong place (Linux 6.18, emulator_halt): none is used then."""
        rip = self.target.rip(processor.number)
        if self._hardware and self._is_halt(processor, rip):
            addresses = [rip + 1, *(a for a in self.target.breakpoints if a != rip)]
            processor.vcpu.set_guest_debug(breakpoints=addresses[:REGISTERS])
        else:
            self._stepped[processor.number] = rip
            processor.vcpu.set_guest_debug(single_step=True, block_irq=block_irq)

    def _is_halt(self, processor: Processor, rip: int) -> bool:
        try:
            return self.target.read(processor.number, rip, 1) == HLT
        except GuestMemoryError:
            return False

    def _on_debug(self, processor: Processor, exit_: DebugExit) -> None:
        """In the processor's thread: a trap."""
        self._arrived(processor, exit_.rip)

    def _on_access(self, processor: Processor) -> None:
        """In the processor's thread: the guest has been to a device. KVM sets no trap behind a write that it emulates
        (its x86_emulate_instruction: "FIXME: return into emulator if single-stepping")."""
        start = self._stepped.get(processor.number)
        if start is not None and (rip := self.target.rip(processor.number)) != start:
            self._arrived(processor, rip)

    def _arrived(self, processor: Processor, rip: int) -> None:
        kind = self._kind(rip)
        if self._doing.get(processor.number) != STEP and not kind:
            self._go_on(processor)
            return
        self._gate.hold()
        self._stops.put(Stop(processor.number, SIGTRAP, kind))
        self.tell()
        self._gate.wait(processor)


def _check(machine: Machine) -> bool:
    """Whether to use the processor's breakpoints; UnsupportedError where it cannot even be stepped."""
    mode = machine.entry.mode if machine.entry else ""
    user = mode == "user64"
    if not has_steps(user=user):
        where, hint = ("code at CPL 3", "--mode long") if user else ("a guest", "")
        raise UnsupportedError("gdb", mode, f"this host's KVM does not stop {where} for a debugger", hint)
    return has_breakpoints(user=user)

"""Resumes and stops a machine's processors: steps, breakpoints, interrupts. When one stops, all stop (all-stop mode).

Theory of operation. Up to four breakpoints use the processor's debug registers, if this host supports them. Otherwise a
processor that continues is single-stepped, and its rip compared with every breakpoint, which is slow but correct. int3
in the guest's code is not used: KVM's software breakpoints do not work on every host (nested, or emulated), and the
guest could see them. When a processor resumes at a breakpoint whose stop was reported, it steps over the breakpoint. If
another processor has reached a breakpoint meanwhile, its stop is reported at the next resume.

Interrupts are blocked between steps: they would leave the step's trap flag on the guest's stack. A processor that
is stepped because there are more than four breakpoints takes its interrupts when it halts. On a host without hardware
breakpoints interrupts are not blocked, so that all code can be stepped; their handlers may then run without a stop.
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

REGISTERS = 4  # debug registers for breakpoints
HLT = b"\xf4"


class Execution:
    """Runs ``machine`` for one client at a time. ``wake``: an eventfd(2), readable after a stop or the end of the
    run."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hardware = _check(machine)
        self._gate = Gate(machine.processors, machine.board)
        self._stops: SimpleQueue[Stop] = SimpleQueue()
        self._actions: dict[int, str] = {}
        self._stepping_from: dict[int, int] = {}  # processor -> rip at which its single step started
        self._reported: dict[int, int] = {}  # processor -> rip of the stop that was reported to the client
        self.target = MachineTarget(machine)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.Lock()
        machine.hooks.gate = self._gate
        machine.hooks.on_debug, machine.hooks.on_access = self._on_debug, self._on_access

    # ---- called by the client's thread

    def attach(self) -> Stop:
        """Stops the machine for a new client."""
        self._gate.stop_all()
        self.target = MachineTarget(self._machine)
        return self.stopped(SIGTRAP)

    def has_stop(self) -> bool:
        """Whether a processor has reported a stop."""
        return not self._stops.empty()

    def stopped(self, signal: int = SIGINT) -> Stop:
        """Stops all processors. Returns the first stop that a processor has reported, else a stop with ``signal``."""
        self._gate.stop_all()
        stop = self._first_stop() or Stop(0, signal)
        self._reported = {stop.number: self.target.rip(stop.number)}
        return stop

    def _first_stop(self) -> Stop | None:
        """The first reported stop. The others are dropped: resume() finds them again by the processors' rip."""
        first = None
        while True:
            try:
                stop = self._stops.get_nowait()
            except Empty:
                return first
            first = first or stop

    def resume(self, actions: dict[int, str]) -> None:
        """Resumes these processors. ``wake`` becomes readable when the first of them stops."""
        for number, action in actions.items():
            rip = self.target.rip(number)
            kind = self._kind(rip)
            if kind and action == CONTINUE and self._reported.get(number) != rip:
                self._stops.put(Stop(number, SIGTRAP, kind))
                self.notify()
                return
        self._stepping_from.clear()
        for number, action in actions.items():
            self._arm(number, action)
        self._machine.board.trace = bool(self._stepping_from) or self._machine.hooks.tracer is not None
        self._reported.clear()
        self._gate.release(actions)

    def detach(self) -> None:
        """Resumes all processors, without breakpoints."""
        self._gate.stop_all()
        self._first_stop()
        self.target.breakpoints.clear()
        self._stepping_from.clear()
        for processor in self._machine.processors:
            processor.vcpu.set_guest_debug()
        self._machine.board.trace = self._machine.hooks.tracer is not None
        self._gate.release()

    def kill(self) -> None:
        """Ends the machine."""
        self._gate.end()

    def close(self) -> None:
        """Removes the hooks from the machine."""
        self._gate.release()
        self._machine.hooks.gate = None
        self._machine.hooks.on_debug = self._machine.hooks.on_access = None
        with self._wake_lock:
            os.close(self.wake)
            self.wake = -1

    def notify(self) -> None:
        """Makes ``wake`` readable; for any thread."""
        with self._wake_lock:
            if self.wake >= 0:
                os.eventfd_write(self.wake, 1)

    def clear_notification(self) -> None:
        """Resets ``wake``."""
        os.eventfd_read(self.wake)

    # ---- breakpoints

    def _kind(self, address: int) -> str:
        """The kind of the breakpoint at ``address``; "": there is none."""
        return next(iter(self.target.breakpoints.get(address, ())), "")

    def _arm(self, number: int, action: str) -> None:
        self._actions[number] = action
        processor = self._machine.processors[number]
        if action == STEP or self._kind(self.target.rip(number)):
            self._step(processor, block_irq=True)
        else:
            self._go_on(processor)

    def _go_on(self, processor: Processor) -> None:
        """Continues a processor; it has passed a breakpoint at the current rip already."""
        self._stepping_from.pop(processor.number, None)
        addresses = list(self.target.breakpoints)
        if not addresses or (self._hardware and len(addresses) <= REGISTERS):
            processor.vcpu.set_guest_debug(breakpoints=addresses)
        else:
            self._step(processor, block_irq=self._hardware)

    def _step(self, processor: Processor, *, block_irq: bool) -> None:
        """Executes one instruction; a HLT ends after the handler of an interrupt. Where KVM emulates the guest, a trap
        after HLT would make the processor halt later, at a wrong address (Linux 6.18, emulator_halt): breakpoints are
        used instead."""
        rip = self.target.rip(processor.number)
        if self._hardware and self._is_halt(processor, rip):
            addresses = [rip + 1, *(a for a in self.target.breakpoints if a != rip)]
            processor.vcpu.set_guest_debug(breakpoints=addresses[:REGISTERS])
        else:
            self._stepping_from[processor.number] = rip
            processor.vcpu.set_guest_debug(single_step=True, block_irq=block_irq)

    def _is_halt(self, processor: Processor, rip: int) -> bool:
        try:
            return self.target.read(processor.number, rip, 1) == HLT
        except GuestMemoryError:
            return False

    def _on_debug(self, processor: Processor, exit_: DebugExit) -> None:
        """Called by the processor's thread at a trap."""
        self._report(processor, exit_.rip)

    def _on_access(self, processor: Processor) -> None:
        """Called by the processor's thread after an access to a device: no trap follows a write that KVM emulates (its
        x86_emulate_instruction: "FIXME: return into emulator if single-stepping")."""
        start = self._stepping_from.get(processor.number)
        if start is not None and (rip := self.target.rip(processor.number)) != start:
            self._report(processor, rip)

    def _report(self, processor: Processor, rip: int) -> None:
        kind = self._kind(rip)
        if self._actions.get(processor.number) != STEP and not kind:
            self._go_on(processor)
            return
        self._gate.hold()
        self._stops.put(Stop(processor.number, SIGTRAP, kind))
        self.notify()
        self._gate.wait(processor)


def _check(machine: Machine) -> bool:
    """Whether debug registers work here. UnsupportedError: not even single steps do."""
    mode = machine.entry.mode if machine.entry else ""
    user = mode == "user64"
    if not has_steps(user=user):
        where, hint = ("code at CPL 3", "--mode long") if user else ("a guest", "")
        raise UnsupportedError("gdb", mode, f"this host's KVM does not stop {where} for a debugger", hint)
    return has_breakpoints(user=user)

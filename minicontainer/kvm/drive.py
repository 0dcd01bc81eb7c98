"""Runs one processor of a machine until the machine ends.

C handles the frequent exits (csrc/kvm/vcpu.c). Any other access goes to the bus; any other exit ends the machine.
"""

from __future__ import annotations

import errno

from minicontainer.errors import Error
from minicontainer.kvm.bus import Access
from minicontainer.kvm.exits import NAMES, DebugExit, GuestEnd, InternalErrorExit, IoExit, typed
from minicontainer.kvm.result import Outcome
from minicontainer.native import check, ffi, lib, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from minicontainer.kvm.bus import Bus
    from minicontainer.kvm.serial import Serial
    from minicontainer.kvm.vcpu import Vcpu

    class Barrier(Protocol):
        """A gate at which a processor can be made to wait before it enters its guest (debug/gate.py)."""

        def wait(self, processor: Processor) -> None:
            """Returns when the processor may go on; GuestEnd if the machine is to end."""

        def wake(self) -> None:
            """Makes all waiting processors check again: a run is over, or the board has changed."""


IO, MMIO, DEBUG = lib.KVM_EXIT_IO, lib.KVM_EXIT_MMIO, lib.KVM_EXIT_DEBUG
SIGNAL, TRACE = lib.MC_STOP_SIGNAL, lib.MC_STOP_TRACE
ITEM_PENDING = 2  # mc_vcpu.open: the caller handles an item of the exit
MASK = 0xFFFFFFFFFFFFFFFF


class Hooks:
    """Callbacks of a machine's processors. A debugger may set and remove them at any time.

    tracer     called after each exit: (processor, its struct mc_exit)
    on_debug   called at each KVM_EXIT_DEBUG, which then does not end the run
    on_access  called after each access to a device, while board.trace is on
    gate       where each processor waits before it enters its guest"""

    def __init__(self) -> None:
        self.tracer: Callable[[Processor, Any], None] | None = None
        self.on_debug: Callable[[Processor, DebugExit], None] | None = None
        self.on_access: Callable[[Processor], None] | None = None
        self.gate: Barrier | None = None


class Processor:
    """One virtual CPU of a machine, and the handling of its exits.

    board  the machine's struct mc_board: the state that its processors share
    bus    the handlers of ports and addresses
    ports  count exits by port"""

    def __init__(
        self, vcpu: Vcpu, number: int, *, board: Any, bus: Bus, serial: Serial, hooks: Hooks, ports: bool
    ) -> None:
        self.vcpu, self.number = vcpu, number
        self._bus, self._serial, self._hooks = bus, serial, hooks
        page, _ = vcpu.mapped()
        self.control = ffi.new("struct mc_vcpu *", {"fd": vcpu.fd, "run": page, "board": board})
        self._board = board  # kept: ``control`` has but its address
        vcpu.control = self.control
        self.ports = ports and ffi.new("uint64_t[]", 2 * lib.MC_IO_PORTS)
        if self.ports:
            self.control.ports = self.ports
        self._last_traced = 0  # the KVM_RUN that was traced last, by its start
        self._previous_run = 0  # the last KVM_RUN of the previous run()
        if hooks.tracer is not None:
            vcpu.sync_regs(lib.KVM_SYNC_X86_REGS)

    def run(self) -> Outcome | None:
        """Runs until the machine ends; None: another processor or another thread has ended it. ValueError: the vcpu is
        closed; Error: it runs already."""
        kept = self.vcpu.mapped()  # what ``control.run`` points to, for as long as this call, whoever closes the vcpu
        if self.control.thread:
            raise Error(f"cpu{self.number}: it runs already")
        self._previous_run = self.control.entered_ns
        try:  # also if a signal handler raises right after it
            check(lib.mc_vcpu_attach(self.control), "mc_vcpu_attach")
            self._pass_gate()
            return self._loop(self.control.exit)
        except GuestEnd as end:
            if self.control.open == ITEM_PENDING:
                self._trace(self.control.exit)
            return Outcome(end.reason, self.number, end.code)
        finally:
            lib.mc_vcpu_detach(self.control)
            self._wake_gate()
            del kept  # an exception may have its traceback, and this frame, for long

    def tally(self) -> tuple[bytes, bytes]:
        """The counters of this processor, for ``Result.tallies``."""
        return ffi.buffer(self.control)[:], ffi.buffer(self.ports)[:] if self.ports else b""

    def kick(self) -> None:
        """Makes the processor leave its guest, or the gate, and check the board."""
        lib.mc_vcpu_kick(self.control)
        self._wake_gate()

    def _pass_gate(self) -> None:
        gate = self._hooks.gate
        if gate is not None:
            gate.wait(self)

    def _wake_gate(self) -> None:
        gate = self._hooks.gate
        if gate is not None:
            gate.wake()

    def _loop(self, e: Any) -> Outcome | None:
        run, control, number = lib.mc_vcpu_run, self.control, self.number
        made = tuple.__new__  # of an Access: a record's own __new__ takes as long as the rest of the loop
        port_handler, address_handler = self._bus.ports.get, self._bus.at_address
        handler: Callable[[Access], int | None] | None
        while True:
            reason = run(control)
            if reason == IO:
                handler = port_handler(e.address)
            elif reason == MMIO:
                handler = address_handler(e.address)
            elif reason == SIGNAL:
                self._report_interrupted()
                self._pass_gate()
                continue
            else:
                ended, outcome = self._handle_other(reason, e)
                if ended:
                    return outcome
                continue
            if handler is None:
                continue  # no device: writes are lost, reads return all ones
            if e.write:
                handler(made(Access, (e.address, e.size, True, e.value, number)))
            else:
                value = handler(made(Access, (e.address, e.size, False, 0, number)))
                if value is not None:
                    try:
                        e.value = value & MASK
                    except TypeError:
                        raise _no_value(e, value) from None

    def _handle_other(self, reason: int, e: Any) -> tuple[bool, Outcome | None]:
        """Whether the exit ends the run, and its outcome; None: another thread has ended the run."""
        if reason < 0:
            check(reason, "KVM_RUN")
        if reason == TRACE:
            self._trace(e)
            if self._hooks.on_access is not None:
                self._hooks.on_access(self)
            return False, None
        if reason == lib.MC_STOP_OUTPUT:
            self._serial.flush(wait=False)  # empties C's buffer, or raises the error of its write(2)
            return False, None
        if reason < lib.MC_STOP_SIGNAL or reason == lib.MC_STOP_DEBUG_EXIT:
            self._trace(e)
        else:
            self._report_interrupted()
        if reason == DEBUG and self._hooks.on_debug is not None:
            exit_ = typed(e)
            assert isinstance(exit_, DebugExit)
            self._hooks.on_debug(self, exit_)
            return False, None
        if reason == lib.MC_STOP_REQUESTED:
            return True, None
        if reason == lib.MC_STOP_DEBUG_EXIT:
            return True, Outcome("debug-exit", self.number, e.value & 0xFF)
        name = END_REASONS.get(reason)
        return True, Outcome(
            name or "internal-error", self.number, 0, "" if name in WITHOUT_DETAILS else self._details(reason, e)
        )

    def _trace(self, e: Any) -> None:
        """Passes an exit to the tracer, once: an exit that ends a run is traced before the guest has completed it."""
        tracer, entered = self._hooks.tracer, self.control.entered_ns
        if tracer is not None and entered != self._last_traced:
            self._last_traced = entered
            tracer(self, e)

    def _report_interrupted(self) -> None:
        """Reports a KVM_RUN that a signal has ended to the machine's ``watch``: it has no exit."""
        watch, entered = self.vcpu.watch, self.control.entered_ns
        if watch is not None and entered not in (self._last_traced, self._previous_run) and self.control.left_ns == 0:
            self._last_traced = entered
            watch(f"KVM_RUN(cpu{self.number})", entered, now(), -errno.EINTR)

    def _details(self, reason: int, e: Any) -> str:
        """The details of an error that ended the machine: the exit, and rip."""
        rip = f"rip {self.vcpu.get_regs().rip:#x}"
        if reason >= lib.MC_STOP_SIGNAL:
            return rip
        exit_ = typed(e)
        if isinstance(exit_, InternalErrorExit):
            return f"{exit_}, at {rip}"
        assert not isinstance(exit_, IoExit)
        values = ", ".join(f"{k} {v:#x}" if isinstance(v, int) else f"{k} {v}" for k, v in exit_._asdict().items())
        return f"{NAMES.get(reason, f'exit {reason}')} at {rip}" + (f" ({values})" if values else "")


def _no_value(e: Any, value: object) -> TypeError:
    where, kind = "port" if e.reason == IO else "address", type(value).__name__
    return TypeError(f"{where} {e.address:#x}: its handler must return a whole number or None, not {kind}")


END_REASONS = {
    lib.KVM_EXIT_HLT: "halt",
    lib.MC_STOP_HALTED: "halt",
    lib.KVM_EXIT_SHUTDOWN: "triple-fault",
    lib.KVM_EXIT_INTERNAL_ERROR: "internal-error",
    lib.KVM_EXIT_FAIL_ENTRY: "fail-entry",
    lib.MC_STOP_DEADLINE: "timeout",
    lib.MC_STOP_EXITS: "max-exits",
}
WITHOUT_DETAILS = ("halt",)

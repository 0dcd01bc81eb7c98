"""What this host's KVM does for a debugger: tried, once a process, in a guest of three bytes.

KVM takes requests for steps and breakpoints everywhere. But KVM-AMD in a virtual machine delivers no hardware
breakpoints, and KVM in software (KVM_PVM) neither them nor steps for code at CPL 3, which it does not interpret.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from minicontainer.kvm.boot.kernel import Entry
from minicontainer.kvm.exits import DebugExit
from minicontainer.kvm.machine import Machine

CODE = bytes.fromhex("90 90 f4")  # nop; nop; hlt
AT = 0x1000
MEMORY = 1 << 16  # the code, a stack, and the tables of long mode


@cache
def has_steps(*, user: bool) -> bool:
    """Whether a processor can be single-stepped; ``user``: at CPL 3."""
    return _stops_at_second(user, single_step=True)


@cache
def has_breakpoints(*, user: bool) -> bool:
    """Whether the breakpoints of the debug registers reach us."""
    return _stops_at_second(user, breakpoints=[AT + 1])


def _stops_at_second(user: bool, **debug: Any) -> bool:
    with Machine(MEMORY) as machine:
        machine.memory.write(AT, CODE)
        machine.entry = Entry("flat", "user64" if user else "real", AT, {}, [(AT, len(CODE))])
        machine.start()
        vcpu = machine.processors[0].vcpu
        vcpu.set_guest_debug(**debug)
        exit_ = vcpu.run()
        return isinstance(exit_, DebugExit) and exit_.rip == AT + 1

"""Probes the debugging features of this host's KVM, once per process, with a guest of three bytes.

KVM accepts KVM_SET_GUEST_DEBUG everywhere. But KVM-AMD inside a virtual machine delivers no hardware breakpoints. Nor
does KVM_PVM, which in code at CPL 3 (which it does not emulate) delivers no single steps either.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from minicontainer.kvm.boot.kernel import Entry
from minicontainer.kvm.exits import DebugExit
from minicontainer.kvm.machine import Machine

CODE = bytes.fromhex("90 90 f4")  # nop; nop; hlt
ADDRESS = 0x1000
MEMORY = 1 << 16  # the code, a stack, and the tables of long mode


@cache
def has_steps(*, user: bool) -> bool:
    """Whether single steps work; ``user``: at CPL 3."""
    return _stops_at_second(user, single_step=True)


@cache
def has_breakpoints(*, user: bool) -> bool:
    """Whether the breakpoints of the debug registers cause a DebugExit."""
    return _stops_at_second(user, breakpoints=[ADDRESS + 1])


def _stops_at_second(user: bool, **debug: Any) -> bool:
    with Machine(MEMORY) as machine:
        machine.memory.write(ADDRESS, CODE)
        machine.entry = Entry("flat", "user64" if user else "real", ADDRESS, {}, [(ADDRESS, len(CODE))])
        machine.start()
        vcpu = machine.processors[0].vcpu
        vcpu.set_guest_debug(**debug)
        exit_ = vcpu.run()
        return isinstance(exit_, DebugExit) and exit_.rip == ADDRESS + 1

"""Virtual machines from /dev/kvm: a class for each of KVM's descriptors, and a small machine above them (x86_64).

    from minicontainer.kvm import Kvm, Machine

    with Kvm() as kvm, kvm.create_vm() as vm, vm.create_vcpu() as vcpu: ...     # KVM's descriptors

    with Machine(memory="2M") as m:                                             # a machine
        m.load("kernel.bin")
        result = m.run(timeout=5)
        result.reason, result.exits, result.output, result.registers

``Kvm``, ``Vm`` and ``Vcpu`` have a method for each ioctl, named after it (Linux Documentation/virt/kvm/api.rst), and
use the kernel's structures; ``Vcpu.run`` returns a typed exit. Names are imported at their first use.
"""

from __future__ import annotations

import os

from minicontainer.errors import UnsupportedError
from minicontainer.native import lib

if not hasattr(lib, "KVM_RUN"):
    raise UnsupportedError("KVM", os.uname().machine, "virtual machines are for x86_64 hosts")

_NAMES = {  # module -> the names that it defines
    "boot": "Entry Kernel KernelError",
    "bus": "Access Bus",
    "coalesced": "CoalescedRing CoalescedWrite",
    "dirty": "DirtyRing",
    "exits": "DebugExit Exit FailEntryExit HltExit HypercallExit InternalErrorExit InterruptedExit IoExit MmioExit"
    " MsrExit ShutdownExit SystemEventExit UnknownExit",
    "machine": "Machine",
    "memory": "GuestMemory GuestMemoryError",
    "result": "ExitCount Outcome Result",
    "routes": "MsiRoute MsrRange PinRoute",
    "screen": "Screen",
    "serial": "Serial",
    "stats": "Stat",
    "system": "Kvm",
    "debug.trace": "Tracer",
    "vcpu": "Vcpu",
    "vm": "Vm",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [
    "Access", "Bus", "CoalescedRing", "CoalescedWrite", "DebugExit", "DirtyRing", "Entry", "Exit", "ExitCount",
    "FailEntryExit", "GuestMemory", "GuestMemoryError", "HltExit", "HypercallExit", "InternalErrorExit",
    "InterruptedExit", "IoExit", "Kernel", "KernelError", "Kvm", "Machine", "MmioExit", "MsiRoute", "MsrExit",
    "MsrRange", "Outcome", "PinRoute", "Result", "Screen", "Serial", "ShutdownExit", "Stat", "SystemEventExit",
    "Tracer", "UnknownExit", "Vcpu", "Vm",
]  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.kvm.boot import Entry, Kernel, KernelError
    from minicontainer.kvm.bus import Access, Bus
    from minicontainer.kvm.coalesced import CoalescedRing, CoalescedWrite
    from minicontainer.kvm.debug.trace import Tracer
    from minicontainer.kvm.dirty import DirtyRing
    from minicontainer.kvm.exits import (
        DebugExit,
        Exit,
        FailEntryExit,
        HltExit,
        HypercallExit,
        InternalErrorExit,
        InterruptedExit,
        IoExit,
        MmioExit,
        MsrExit,
        ShutdownExit,
        SystemEventExit,
        UnknownExit,
    )
    from minicontainer.kvm.machine import Machine
    from minicontainer.kvm.memory import GuestMemory, GuestMemoryError
    from minicontainer.kvm.result import ExitCount, Outcome, Result
    from minicontainer.kvm.routes import MsiRoute, MsrRange, PinRoute
    from minicontainer.kvm.screen import Screen
    from minicontainer.kvm.serial import Serial
    from minicontainer.kvm.stats import Stat
    from minicontainer.kvm.system import Kvm
    from minicontainer.kvm.vcpu import Vcpu
    from minicontainer.kvm.vm import Vm


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"minicontainer.kvm.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
